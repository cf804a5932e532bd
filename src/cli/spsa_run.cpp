#include "cli/spsa_run.h"

#include "cli/going_on.h"
#include "io/files.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// The recipe and data that the log's rounds were made with: kept beside the log, compared when the run goes on.
void require_same_spsa_run(const JobInputs& in, const PackedDataset& data, const std::string& base,
                           const fs::path& run_path) {
  const fs::path file = run_path / "run.json";
  if (const auto saved = meta_of_log(run_path)) {
    require_same_run(in.recipe, data, *saved, file);
    require_same_base(base, *saved, file);
  }
}

/// A log that is begun, or that a branch brought along, is this recipe's from now on.
void keep_spsa_run(const JobInputs& in, const PackedDataset& data, const std::string& base, Rules rules,
                   const fs::path& run_path, const std::string& header) {
  const fs::path file = run_path / "run.json", there = run_path / "log" / "header.json";
  const bool has_log = fs::exists(there);
  if (has_log && (fs::exists(file) || read_text_file(there) != header)) return;  // another header is refused later on
  Json recipe = Json::object();
  for (const auto& [key, value] : in.recipe.flat()) recipe.set(key, value);
  Json run = Json::object().set("base", base).set("data_hash", data.hash()).set("recipe", recipe);
  if (rules != Rules::first) run.set("rules", static_cast<int64_t>(rules));
  write_text_file(file, run.dump(1) + "\n");
}

}  // namespace

fs::path own_run_folder(const JobInputs& in) {
  const SpsaConfig& spsa = in.config.trainer.spsa;
  const fs::path folder = run_folder_path(in);
  if (in.config.trainer.train.estimator != "spsa" || spsa.transport != "file" || spsa.machine == 0) return folder;
  create_folder(folder);
  return folder / fmt::format("machine-{:05}", spsa.machine);
}

fs::path shared_folder(const JobInputs& in) {
  const SpsaConfig& spsa = in.config.trainer.spsa;
  return spsa.shared.empty() ? run_folder_path(in) / "engine" : spsa.shared;
}

std::optional<CheckpointMeta> meta_of_log(const fs::path& run_path) {
  const fs::path file = run_path / "run.json";
  if (!fs::exists(run_path / "log" / "header.json") || !fs::exists(file)) return std::nullopt;
  CheckpointMeta saved;
  with_place(file.string(), [&] {
    const Json json = Json::parse(read_text_file(file), file.string());
    for (const auto& [key, value] : json.at("recipe").members()) saved.recipe.emplace_back(key, value.as_string());
    saved.data_hash = json.at("data_hash").as_string();
    saved.base_fingerprint = json.at("base").as_string();
    saved.rules = json.find("rules") ? rules_of(json.at("rules").as_integer()) : Rules::first;
  });
  return saved;
}

std::unique_ptr<SpsaInputs> spsa_inputs(const JobInputs& in, Model& model, const PackedDataset& data,
                                        const std::string& base, Rules rules, const fs::path& run_path,
                                        const Context& ctx) {
  const SpsaConfig& config = in.config.trainer.spsa;
  const bool file = config.transport == "file";
  auto spsa = std::make_unique<SpsaInputs>();
  std::string text;
  if (in.world.rank() == 0) {
    require_same_spsa_run(in, data, base, run_path);
    const int machines = file ? static_cast<int>(config.machines) : in.world.size();
    text = make_header(config, in.config.trainer.train, in.config.trainer.optimizer, model, base, machines, rules,
                       run_path / "log", ctx)
               .text();
    keep_spsa_run(in, data, base, rules, run_path, text);
  }
  spsa->header = RunHeader::parse(broadcast_text(in.world, text), "the run's header");
  spsa->shared = shared_folder(in);
  spsa->prober = make_prober(config, model);
  return spsa;
}

}  // namespace tessera
