#include "train/spsa/loose/start_file.h"

#include "core/error.h"
#include "io/files.h"

namespace tessera {

std::filesystem::path start_file(const std::filesystem::path& checkpoints) { return checkpoints / "start.safetensors"; }

void keep_start(Replica& replica, const std::filesystem::path& checkpoints) {
  TS_CHECK(replica.round() == 0, "a start after {} rounds", replica.round());
  create_folder(checkpoints);
  replica.save(start_file(checkpoints));
}

void load_start(const Context& ctx, Replica& replica, const FlatParams& params,
                const std::filesystem::path& checkpoints) {
  const std::filesystem::path file = start_file(checkpoints);
  replica.load(file);
  // Nothing else vouches for the file. The header does, and every machine has that.
  const std::string digest = values_digest(ctx, params, params.values).text();
  if (digest == replica.header().start && replica.round() == 0) return;
  throw UserError(
      file.string(),
      fmt::format("is not what the run begins with: digest {}, expected {}", digest, replica.header().start),
      "start this machine again: it makes its weights anew from the base model and its log");
}

}  // namespace tessera
