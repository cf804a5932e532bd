#include "model/native_folder.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/rules.h"
#include "io/files.h"
#include "io/folders.h"
#include "io/json_file.h"
#include "model/config_fingerprint.h"
#include "model/native_mend.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

/// By the exponents: whole numbers, of which compilers make vectors.
bool all_finite(std::span<const float> values) {
  constexpr uint32_t kExponent = 0x7f800000;
  bool broken = false;
  for (const float value : values) broken |= (std::bit_cast<uint32_t>(value) & kExponent) == kExponent;
  return !broken;
}

}  // namespace

void NativeFolder::read(const std::string& hint_of_missing) {
  if (!fs::is_directory(folder_))
    throw UserError(where_,
                    fmt::format("the {}'s folder \"{}\" {}", kind_.what, folder_.string(),
                                fs::exists(folder_) ? "is a file" : "does not exist"),
                    hint_of_missing);
  if (!fs::exists(folder_ / kind_.description))
    throw UserError(where_, fmt::format("\"{}\" holds no {}", folder_.string(), kind_.description), hint_of_missing);
  const std::string file = (folder_ / kind_.description).string();
  json_ = with_mend(file, kMendNative, [&] { return read_configuration(file); });
  const Json* format = json_.find("format");
  if (!format || format->dump() != Json(kind_.format).dump())
    throw UserError(
        file,
        fmt::format("this is no description of {} {}: \"format\" is not \"{}\"",
                    std::string(kind_.what).find_first_of("aeiou") == 0 ? "an" : "a", kind_.what, kind_.format),
        kMendNative);
  with_mend(file, kMendNative, [&] {
    if (const int64_t version = json_.at("format_version").as_integer(); version != kFormatVersion)
      throw UserError(file, fmt::format("format_version is {}, this program reads {}", version, kFormatVersion),
                      "use the version of the program that wrote it, or a later one");
    json_.at(kind_.what).members();
    json_.at("sha256").as_string();
    if (const Json* rules = json_.find("rules")) rules_of(rules->as_integer());
  });
}

// The description is written last and holds the hash: numbers of one save and a description of another, as a kill
// between the two leaves them, do not pass.
SafetensorsReader NativeFolder::open_tensors(const std::string& file_name) const {
  const fs::path file = folder_ / file_name;
  auto reader = SafetensorsReader::open(file);
  if (const std::string hash = sha256_of_file(file), &saved = json_.at("sha256").as_string(); hash != saved)
    throw UserError(file.string(), fmt::format("its SHA-256 is {}, {} says {}", hash, kind_.description, saved),
                    "the file was altered, or the save was cut short: take another copy");
  return reader;
}

void NativeFolder::require_equal(const std::string& what, const Json* saved, const Json* ours,
                                 const std::string& hint) const {
  const std::string theirs = saved ? saved->dump() : "nothing", mine = ours ? ours->dump() : "nothing";
  if (theirs == mine) return;
  throw UserError(where_,
                  fmt::format("the {} in \"{}\" was saved with {} {}, this run has {}", kind_.what, folder_.string(),
                              what, theirs, mine),
                  hint);
}

void NativeFolder::require_same(const Json& ours, const std::vector<std::string>& except,
                                const std::function<std::string(const std::string& key)>& hint_of_list) const {
  const Json& saved = json_.at(kind_.what);
  for (const auto& [key, value] : ours.members()) {
    if (std::find(except.begin(), except.end(), key) != except.end()) continue;
    const Json* theirs = saved.find(key);
    if (!value.is_array() || !theirs || !theirs->is_array()) {
      require_equal(key, theirs, &value,
                    fmt::format("set {0}.{1} to the saved value, or leave {0}.load out", kind_.what, key));
      continue;
    }
    const auto &there = theirs->items(), &here = value.items();
    for (size_t i = 0; i < std::max(there.size(), here.size()); ++i)
      require_equal(key, i < there.size() ? &there[i] : nullptr, i < here.size() ? &here[i] : nullptr,
                    hint_of_list(key));
  }
}

void NativeFolder::require_same_config(const ModelConfig& config) const {
  const Json* saved = json_.find("config_fingerprint");
  const Json ours = config_fingerprint(config);
  if (!saved || saved->dump() == ours.dump()) return;
  // Folders of earlier versions do not tell the numbers.
  const Json* numbers = json_.find("config_numbers");
  if (const std::string changed =
          numbers && numbers->is_object() ? changed_numbers(*numbers, config_numbers(config)) : "";
      !changed.empty())
    throw UserError(
        where_,
        fmt::format("the {} in \"{}\" belongs to another config.json: {}", kind_.what, folder_.string(), changed),
        "put back the config.json of model.path that it was trained with");
  require_equal("config_fingerprint", saved, &ours,
                "the config.json of model.path has other numbers now (sizes, heads, rms_norm_eps, rope, tied weights, "
                "biases, windows): put back the one that it was trained with");
}

void NativeFolder::write(const NativeKind& kind, const fs::path& folder, const std::string& file_name,
                         const std::vector<std::pair<std::string, ConstView>>& tensors, const Json& description,
                         const std::vector<std::pair<std::string, Json>>& extra,
                         const std::vector<std::pair<std::string, std::string>>& files) {
  with_place(folder.string(), [&] { require_finite(kind.what, tensors); });
  int64_t parameters = 0;
  for (const auto& [name, values] : tensors) parameters += values.shape.count();
  Json json =
      Json::object().set("format", kind.format).set("format_version", kFormatVersion).set(kind.what, description);
  for (const auto& [key, value] : extra) json.set(key, value);
  const std::string description_file = kind.description;
  const auto is_ours = [&](const std::string& name) {
    return name == description_file || name == file_name ||
           std::any_of(files.begin(), files.end(), [&](const auto& file) { return file.first == name; });
  };
  replace_folder(folder, is_ours, [&](const fs::path& to) {
    write_safetensors(to / file_name, tensors);
    for (const auto& [name, text] : files) write_text_file(to / name, text);
    json.set("parameters", parameters).set("file", file_name).set("sha256", sha256_of_file(to / file_name));
    write_text_file(to / description_file, json.dump(2) + "\n");
  });
}

void require_finite(const std::string& what, const std::vector<std::pair<std::string, ConstView>>& tensors) {
  for (const auto& [name, values] : tensors)
    if (const int64_t broken = first_broken(values); broken >= 0)
      throw UserError("",
                      fmt::format("the {} is not saved: element {} of \"{}\" is {}", what, broken, name,
                                  element(OnHost(values).view(), broken)),
                      "the training has diverged: train with a lower optimizer.lr");
}

int64_t first_broken(const ConstView& values) {
  const OnHost host(values);
  const ConstView& view = host.view();
  if (view.dtype == DType::f32 && all_finite(view.as<float>())) return -1;
  for (int64_t i = 0; i < view.shape.count(); ++i)
    if (!std::isfinite(element(view, i))) return i;
  return -1;
}

}  // namespace tessera
