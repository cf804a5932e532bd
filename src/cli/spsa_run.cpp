#include "cli/spsa_run.h"

#include "cli/going_on.h"
#include "cli/run_path.h"
#include "io/files.h"
#include "io/json_file.h"
#include "model/config_fingerprint.h"
#include "steplog/log_engine.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// run.json beside a log: the recipe and data that the log's rounds are made with.
struct KeptRun {
  fs::path file, header;  // header: of the log
};
KeptRun kept_by_run(const fs::path& run_path) { return {run_path / "run.json", run_path / "log" / "header.json"}; }
KeptRun kept_by_shared(const fs::path& shared) { return {shared / "run.json", shared / "header.json"}; }

std::optional<CheckpointMeta> meta_of(const KeptRun& kept) {
  if (!fs::exists(kept.header) || !fs::exists(kept.file)) return std::nullopt;
  CheckpointMeta saved;
  with_place(kept.file.string(), [&] {
    const Json json = read_configuration(kept.file);
    for (const auto& [key, value] : json.at("recipe").members()) saved.recipe.emplace_back(key, value.as_string());
    saved.data_hash = json.at("data_hash").as_string();
    saved.base_fingerprint = json.at("base").as_string();
    saved.rules = json.find("rules") ? rules_of(json.at("rules").as_integer()) : Rules::first;
    if (const Json* config = json.find("config")) saved.config_fingerprint = config->as_string();
  });
  return saved;
}

/// Compared when a run goes on, and by each process that shares a folder with others.
void require_same_spsa_run(const JobInputs& in, Model& model, const PackedDataset& data, const std::string& base,
                           const KeptRun& kept) {
  const auto saved = meta_of(kept);
  if (!saved) return;
  const GoingOn going{.saved = *saved, .file = kept.file};
  require_same_run(in, data, going);
  require_same_content(in, model, base, going);
}

/// The same for the folder that processes share, in words for those who come later.
void require_same_as_peers(const JobInputs& in, Model& model, const PackedDataset& data, const std::string& base,
                           const KeptRun& shared) {
  try {
    require_same_spsa_run(in, model, data, base, shared);
  } catch (const UserError& error) {
    const size_t end = error.hint().rfind('\n');  // behind the keys that differ
    throw UserError(
        error.where(), "the processes that share this folder have another recipe, other data or another base",
        fmt::format("{}\ngive all of them the same, or name other folders with {}{}",
                    end == std::string::npos ? error.message() : error.hint().substr(0, end),
                    in.config.trainer.spsa.shared.empty() ? "run.dir" : "spsa.shared and run.dir",
                    in.config.run.resume == "never" ? ": run.resume=never leaves the shared folder as it is" : ""));
  }
}

/// A log that is begun, or that a branch brought along, is this recipe's from now on.
void keep_spsa_run(const JobInputs& in, const Model& model, const PackedDataset& data, const std::string& base,
                   Rules rules, const KeptRun& kept, const std::string& header) {
  const bool has_log = fs::exists(kept.header);
  if (has_log && (fs::exists(kept.file) || read_text_file(kept.header) != header))
    return;  // another header is refused later on
  Json recipe = Json::object();
  for (const auto& [key, value] : in.recipe.flat()) recipe.set(key, value);
  Json run = Json::object()
                 .set("base", base)
                 .set("config", config_fingerprint(model.config()))
                 .set("data_hash", data.hash())
                 .set("recipe", recipe);
  if (rules != Rules::first) run.set("rules", static_cast<int64_t>(rules));
  write_text_file(kept.file, run.dump(1) + "\n");
}

void refuse_own_as_shared(const fs::path& shared, const fs::path& run_path) {
  for (const fs::path& own : {run_path, run_path / "log"})
    if (fs::weakly_canonical(shared) == fs::weakly_canonical(own))
      throw UserError("spsa.shared", fmt::format("\"{}\" is what this machine writes alone", own.string()),
                      "name a folder beside it, or leave it out");
}

}  // namespace

fs::path own_run_path(const JobInputs& in) {
  const SpsaConfig& spsa = in.config.trainer.spsa;
  const fs::path folder = run_folder_path(in);
  const bool is_alone = in.config.trainer.train.estimator != "spsa" || spsa.transport != "file" || spsa.machine == 0;
  return is_alone ? folder : folder / fmt::format("machine-{:05}", spsa.machine);
}

fs::path own_run_folder(const JobInputs& in) {
  const fs::path own = own_run_path(in);
  if (own != run_folder_path(in)) create_folder(run_folder_path(in));
  return own;
}

fs::path shared_folder(const JobInputs& in) {
  const SpsaConfig& spsa = in.config.trainer.spsa;
  return spsa.shared.empty() ? run_folder_path(in) / "engine" : spsa.shared;
}

std::optional<CheckpointMeta> meta_of_log(const fs::path& run_path) { return meta_of(kept_by_run(run_path)); }

std::unique_ptr<SpsaInputs> spsa_inputs(const JobInputs& in, Model& model, const PackedDataset& data,
                                        const std::string& base, Rules rules, const fs::path& run_path,
                                        const Context& ctx) {
  const SpsaConfig& config = in.config.trainer.spsa;
  const bool file = config.transport == "file";
  auto spsa = std::make_unique<SpsaInputs>();
  spsa->shared = shared_folder(in);
  std::string text;
  if (in.world.rank() == 0) {
    require_same_spsa_run(in, model, data, base, kept_by_run(run_path));
    const int machines = file ? static_cast<int>(config.machines) : in.world.size();
    text = make_header(config, in.config.trainer.train, in.config.trainer.optimizer, model, base, machines, rules,
                       run_path / "log", ctx)
               .text();
    if (file) {
      refuse_own_as_shared(spsa->shared, run_path);
      const KeptRun shared = kept_by_shared(spsa->shared);
      spsa->seat = std::make_unique<Seat>(spsa->shared, static_cast<uint32_t>(config.machine),
                                          static_cast<uint32_t>(config.machines), [&] {
                                            require_same_as_peers(in, model, data, base, shared);
                                            make_file_engine(spsa->shared, text);  // the first one makes the log
                                            keep_spsa_run(in, model, data, base, rules, shared, text);
                                          });
    }
    keep_spsa_run(in, model, data, base, rules, kept_by_run(run_path), text);
  }
  spsa->header = RunHeader::parse(broadcast_text(in.world, text), "the run's header");
  spsa->prober = make_prober(config, model);
  return spsa;
}

}  // namespace tessera
