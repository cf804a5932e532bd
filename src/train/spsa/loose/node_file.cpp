#include "train/spsa/loose/node_file.h"

#include <limits>

#include "core/direction.h"
#include "core/error.h"
#include "core/hex.h"
#include "core/json.h"
#include "io/files.h"
#include "io/json_file.h"

namespace tessera {
std::optional<NodeFile> NodeFile::read(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return std::nullopt;
  NodeFile node;
  with_mend(file, "remove the file: the machine joins anew then", [&] {
    const Json json = Json::parse(read_text_file(file), file.string());
    node.name = json.at("name").as_string();
    node.run = json.at("run").as_string();
    node.run_name = json.at("run_name").as_string();
    const int64_t machine = json.at("machine").as_integer();
    node.last_seed_round = json.at("last_seed_round").as_integer();
    if (const Json* vote = json.find("vote")) {
      auto bytes = bytes_of_hex(vote->as_string());
      if (!bytes) throw UserError("", "its vote is no hexadecimal");
      node.vote = std::move(*bytes);
    }
    const int64_t most = std::numeric_limits<uint32_t>::max();
    if (machine < 0 || machine >= int64_t{kReservedMachines} || node.last_seed_round < -1 ||
        node.last_seed_round > most)
      throw UserError("", "a number in it is out of range");
    node.machine = static_cast<uint32_t>(machine);
  });
  return node;
}

void NodeFile::write(const std::filesystem::path& file) const {
  const Json json = Json::object()
                        .set("last_seed_round", last_seed_round)
                        .set("machine", int64_t{machine})
                        .set("name", name)
                        .set("run", run)
                        .set("run_name", run_name)
                        .set("vote", hex_text(vote));
  write_text_file(file, json.dump(1) + "\n");
}

}  // namespace tessera
