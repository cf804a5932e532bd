#include "model/base_files.h"

#include <cstring>

#include "core/error.h"
#include "core/recipe.h"
#include "io/json_file.h"
#include "model/config_agreement.h"
#include "model/foreign_folder.h"
#include "model/model.h"
#include "model/quantised_folder.h"
#include "model/tensor_names.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// Of a folder of which not all was downloaded, its errors say how to go on.
SafetensorsReader open_files(const fs::path& folder) {
  try {
    return SafetensorsReader::open_folder(folder);
  } catch (const UserError& error) {
    const std::string hint = error.hint().empty() ? hint_of_missing_file(folder) : "";
    if (hint.empty()) throw;
    throw UserError(error.where(), error.message(), hint);
  }
}

bool is_run(const fs::path& folder) {
  return fs::exists(folder / "recipe.toml") &&
         (fs::exists(folder / "metrics.jsonl") || fs::exists(folder / "checkpoints"));
}

std::string base_hint(const std::string& base) {
  if (base.empty()) return "set model.path to the base model that it was trained on";
  return fmt::format("set model.path to the base model that it was trained on: \"{}\"", base);
}

std::string peft_base(const fs::path& folder) {
  const Json config = read_configuration(folder / "adapter_config.json");
  const Json* base = config.find("base_model_name_or_path");
  return base && base->is_string() ? base->as_string() : "";
}

}  // namespace

fs::path base_of_run(const fs::path& run) {
  try {
    ModelOptions options;
    Recipe recipe = Recipe::load(run / "recipe.toml");
    recipe.read("model", options);
    return options.path;
  } catch (const UserError&) {
    return {};
  }
}

void refuse_other_folder(const fs::path& folder, const std::string& where) {
  // A link that cannot be followed is there, too: who reads it says what is wrong.
  if (fs::exists(fs::symlink_status(folder / "config.json")) || !fs::is_directory(folder)) return;
  const auto fail = [&](const std::string& what, const std::string& hint) {
    throw UserError(where, fmt::format("model.path \"{}\" is {} and no model", folder.string(), what), hint);
  };
  if (fs::exists(folder / "adapter_config.json"))
    fail(
        "an adapter in PEFT's format",
        base_hint(peft_base(folder)) +
            "\nan adapter of PEFT answers requests, by generate.adapters; what a run of this program trained is read by "
            "adapter.load, too");
  if (fs::exists(folder / "adapter.json"))
    fail("a saved adapter", base_hint(base_of_run(fs::absolute(folder).parent_path())) +
                                fmt::format("\nand adapter.load to \"{}\"", folder.string()));
  if (fs::exists(folder / "sharing.json"))
    fail("a saved pool", base_hint(base_of_run(fs::absolute(folder).parent_path())) +
                             fmt::format("\nand sharing.load to \"{}\"", folder.string()));
  if (!is_run(folder)) return;
  if (fs::exists(folder / "model" / "config.json"))
    fail("the folder of a run",
         fmt::format("set model.path to the model that it wrote: \"{}\"", (folder / "model").string()));
  std::string hint = base_hint(base_of_run(folder));
  for (const char* part : {"adapter", "sharing"})
    if (fs::exists(folder / part)) hint += fmt::format("\nand {}.load to \"{}\"", part, (folder / part).string());
  fail("the folder of a run", hint);
}

SafetensorsReader open_base(const fs::path& folder, const ModelConfig& config) {
  const std::vector<WeightSpec> specs = weight_specs(config);
  SafetensorsReader source = open_files(folder);
  refuse_quantised_tensors(folder, source);
  const TensorNames names(source, specs);
  require_agreement(source, config, specs, names);
  take_own_names(source, specs, names);
  for (const WeightSpec& spec : specs)
    if (spec.storage != spec.name && source.contains(spec.name) && !source.contains(spec.storage))
      source.rename({{spec.name, spec.storage}});
  return source;
}

void require_equal_ties(const SafetensorsReader& source, std::span<const WeightSpec> specs) {
  for (const WeightSpec& spec : specs) {
    if (spec.storage == spec.name || !source.contains(spec.name)) continue;
    const ConstView read = source.at(spec.storage), other = source.at(spec.name);
    const bool are_equal = read.dtype == other.dtype && read.shape == other.shape &&
                           std::memcmp(read.data, other.data, static_cast<size_t>(read.bytes())) == 0;
    // Nobody may read the second again, and of the first a copy may be made.
    for (const auto& [name, view] : {std::pair{&spec.storage, read}, {&spec.name, other}})
      source.file_of(*name)->forget({static_cast<const std::byte*>(view.data), static_cast<size_t>(view.bytes())});
    if (are_equal) continue;
    throw UserError(
        source.file_of(spec.name)->path().string(),
        fmt::format("\"{}\" and \"{}\" are tied by config.json, but their stored weights differ", spec.storage,
                    spec.name),
        fmt::format("set \"tie_word_embeddings\" to false in config.json, or take \"{}\" out of the file", spec.name));
  }
}

}  // namespace tessera
