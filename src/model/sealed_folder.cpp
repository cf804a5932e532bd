#include "model/sealed_folder.h"

#include <map>

#include "core/error.h"
#include "core/json.h"
#include "io/files.h"
#include "io/json_file.h"

namespace tessera {

namespace fs = std::filesystem;

void seal_folder(const fs::path& folder) {
  std::map<std::string, std::string> hashes;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file()) hashes[entry.path().filename().string()] = sha256_of_file(entry.path());
  Json files = Json::object();
  for (const auto& [name, hash] : hashes) files.set(name, hash);
  write_text_file(
      folder / kSealFile,
      Json::object().set("format", "tessera model").set("format_version", int64_t{1}).set("sha256", files).dump(2) +
          "\n");
}

void require_seal(const fs::path& folder) {
  const fs::path seal = folder / kSealFile;
  if (!fs::exists(seal)) return;
  const Json json = read_configuration(seal);
  const auto hashes = with_place(seal.string(), [&] { return json.at("sha256").members(); });
  for (const auto& [name, saved] : hashes) {
    const fs::path file = folder / name;
    const std::string hint =
        fmt::format("take another copy of the folder; where the change is meant, remove {} from it", kSealFile);
    if (!fs::exists(file)) throw UserError(file.string(), fmt::format("is missing, {} lists it", kSealFile), hint);
    if (const std::string hash = sha256_of_file(file); Json(hash).dump() != saved.dump())
      throw UserError(file.string(), fmt::format("its SHA-256 is {}, {} says {}", hash, kSealFile, saved.dump()), hint);
  }
}

}  // namespace tessera
