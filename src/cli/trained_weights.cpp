#include "cli/trained_weights.h"

#include "cli/folded_run.h"
#include "cli/going_on.h"
#include "cli/model_settings.h"
#include "cli/run_path.h"
#include "cli/spsa_run.h"
#include "core/error.h"
#include "model/adapter_io.h"
#include "model/export.h"
#include "train/divergence.h"

namespace tessera {
namespace {

/// @return whether there is one; not where a run that goes on has removed what it was looking at
bool try_newest(const std::filesystem::path& checkpoints, NamedCheckpoint& named) {
  const std::vector<int64_t> steps = checkpoint_steps(checkpoints);
  try {
    std::vector<std::string> ignored;
    const auto newest = newest_checkpoint(checkpoints, ignored);
    if (!newest) throw UserError(checkpoints.string(), "holds no checkpoint");
    named.opened.emplace(OpenedCheckpoint(*newest));
    named.file = *newest;
  } catch (const UserError&) {
    if (checkpoint_steps(checkpoints) == steps) throw;
  }
  return named.opened.has_value();
}

void open_newest(const std::filesystem::path& folder, NamedCheckpoint& named) {
  const std::filesystem::path checkpoints = checkpoints_in(folder).value_or(folder);
  constexpr int kTries = 3;
  for (int attempt = 0; attempt < kTries; ++attempt)
    if (try_newest(checkpoints, named)) return;
  throw UserError(checkpoints.string(), "the newest checkpoint is removed before it can be read",
                  "raise checkpoint.keep of the run that goes on, or name a checkpoint that stays");
}

/// Opened once, whatever a run that goes on does with its files meanwhile.
const NamedCheckpoint& named_checkpoint(const JobInputs& in) {
  NamedCheckpoint& named = *in.checkpoint;
  if (named.opened) return named;
  const std::filesystem::path path = in.config.run.resume;
  if (std::filesystem::is_directory(path)) {
    open_newest(path, named);
  } else {
    named.opened.emplace(OpenedCheckpoint::chosen(path));
    named.file = path;
  }
  return named;
}

/// Written last by an export: the folder is whole.
bool holds_model(const std::filesystem::path& folder) { return std::filesystem::exists(folder / "model.safetensors"); }

bool holds_sharing(const std::filesystem::path& run) {
  return std::filesystem::exists(run / "sharing" / "sharing.json");
}

/// @throws UserError when the run ended with weights that are held in another way than the recipe's
void require_same_sharing(const JobInputs& in, const std::filesystem::path& run) {
  const bool shared = in.config.sharing.method != "none";
  if (shared ? holds_sharing(run) || !holds_model(run / "model") : !holds_sharing(run)) return;
  throw UserError(
      in.recipe.where("run", "dir"),
      fmt::format("\"{}\" holds {}, and this recipe has sharing.method = \"{}\"", run.string(),
                  shared ? "a dense model and no shared weights" : "shared weights", in.config.sharing.method),
      "set [sharing] as the run has it in its recipe.toml, or name another folder with run.dir");
}

/// Whether the run trained an adapter: its base model is still the recipe's.
bool is_adapter_run(const std::filesystem::path& run) {
  if (std::filesystem::exists(run / "adapter" / "adapter.json")) return true;
  if (!std::filesystem::exists(run / "recipe.toml")) return false;
  AdapterConfig adapter;
  Recipe recipe = Recipe::load(run / "recipe.toml");
  recipe.read("adapter", adapter);
  return adapter.method != "none";
}

/// How the weights of a run are got where it has written none: from its newest checkpoint or its log;
/// empty without either.
std::string how_to_get_weights(const std::filesystem::path& run) {
  if (const auto steps = checkpoint_steps(run / "checkpoints"); !steps.empty())
    return "job=export, evaluate and generate take those of a checkpoint: " +
           shell_word("run.resume=" + checkpoint_file(run / "checkpoints", steps.front()).string());
  if (std::filesystem::exists(run / "log" / "header.json"))
    return "job=replay rebuilds those of any round: " + shell_word("replay.log=" + run.string());
  return "";
}

/// @throws UserError when the run holds steps of a training of all weights, and not the model that it ends with
void require_ended(const JobInputs& in, const std::filesystem::path& run) {
  std::vector<std::string> ignored;
  if (!std::filesystem::exists(run / "log" / "header.json") && !newest_checkpoint(run / "checkpoints", ignored)) return;
  const std::string what_helps = how_to_get_weights(run);
  if (MetricsFile(run / "metrics.jsonl").done())
    throw UserError(in.recipe.where("run", "dir"),
                    fmt::format("the training in \"{}\" has ended, and what it wrote is gone", run.string()),
                    what_helps);
  throw UserError(
      in.recipe.where("run", "dir"),
      fmt::format("the training in \"{}\" has not ended: it holds no model yet", run.string()),
      "finish it with the command that began it, or set another run.dir to work with the base model\n" + what_helps);
}

/// The shared weights that the run trained, if it has.
void use_trained_sharing(const JobInputs& in, const std::filesystem::path& run, Model::Settings& settings) {
  require_same_sharing(in, run);
  if (!holds_sharing(run)) {
    require_ended(in, run);
    if (settings.sharing.load.empty() && settings.model.init == "random")
      throw UserError(
          in.recipe.where("sharing", "load"),
          fmt::format("there are no trained weights: sharing.load is not set and \"{}\" holds none", run.string()),
          "set sharing.load to a folder that a training wrote, or run.dir to the run's folder");
    return;
  }
  settings.sharing.load = run / "sharing";
  settings.where_sharing = in.recipe.where("run", "dir");
  if (in.world.rank() == 0 && !in.quiet)
    fmt::print(stderr, "the shared weights that the run trained: {}\n", settings.sharing.load.string());
}

/// By which the run's weights were drawn, as its checkpoints or its log tell; else the newest.
Rules rules_of_trained(const std::filesystem::path& run) {
  std::vector<std::string> notices;
  if (const auto file = newest_checkpoint(run / "checkpoints", notices)) return read_checkpoint_meta(*file).rules;
  const auto meta = meta_of_log(run);
  return meta ? meta->rules : kNewestRules;
}

}  // namespace

Model::Settings trained_model_settings(const JobInputs& in, int64_t max_position) {
  Model::Settings settings = model_settings(in, max_position);
  if (names_checkpoint(in.config.run)) {  // its values go where training has them
    settings.train_base = in.config.adapter.method == "none";
    if (in.checkpoint->opened || std::filesystem::exists(in.config.run.resume))
      settings.sharing.rules = named_checkpoint(in).opened->meta().rules;
    return settings;
  }
  require_folded_model(in);
  const std::filesystem::path run = run_folder_path(in), trained = run / "model";
  if (settings.model.init == "random") settings.sharing.rules = rules_of_trained(run);
  if (in.config.adapter.method != "none" || is_adapter_run(run)) return settings;
  if (in.config.sharing.method != "none") {
    use_trained_sharing(in, run, settings);
    return settings;
  }
  if (!holds_model(trained)) {
    require_same_sharing(in, run);
    require_ended(in, run);
    return settings;
  }
  settings.model.path = trained;
  settings.model.init = "pretrained";
  settings.where_model = in.recipe.where("run", "dir");
  if (in.world.rank() == 0 && !in.quiet) fmt::print(stderr, "the model that the run trained: {}\n", trained.string());
  return settings;
}

void refuse_base_export(const JobInputs& in) {
  const std::filesystem::path run = run_folder_path(in), trained = run / "model";
  require_folded_model(in);
  if (in.config.adapter.method != "none") return;
  refuse_own_folder(trained, in.config.model.path);
  if (names_checkpoint(in.config.run)) return;
  require_same_sharing(in, run);
  if (holds_sharing(run)) return;
  if (holds_model(trained))
    throw UserError(
        in.recipe.where("run", "dir"),
        std::filesystem::exists(run / "recipe.toml")
            ? fmt::format("the model that this run trained is already written, in \"{}\"", trained.string())
            : fmt::format("\"{}\" already holds a model, and the base model is not written over it", trained.string()),
        "use it as it is; run.resume=FILE writes what a checkpoint holds, another run.dir=FOLDER the base model");
  if (!is_adapter_run(run)) require_ended(in, run);
}

void start_from_saved_adapter(const JobConfig& config, Model& model) {
  if (!config.adapter.load.empty() && model.adapter()) load_adapter(config.adapter.load, model, "adapter.load");
}

namespace {

void use_checkpoint(const JobInputs& in, Model& model) {
  if (const std::filesystem::path file = in.config.run.resume; file.extension() == ".safetensors")
    throw UserError(in.recipe.where("run", "resume"), fmt::format("\"{}\" is no checkpoint's file", file.string()),
                    "the weights of an SPSA run at any round: job=replay replay.round=N");
  const NamedCheckpoint& named = named_checkpoint(in);
  const CheckpointMeta& saved = named.opened->meta();
  require_same_model(in, model, saved, named.file);
  named.opened->load_values(model.pool().trainable());
  if (in.world.rank() == 0 && !in.quiet)
    fmt::print(stderr, "the weights after step {}: {}\n", saved.step, named.file.string());
}

/// Where a run's folder holds no adapter: what is there instead, as one more line of a hint; empty where nothing is.
std::string way_to_weights(const std::filesystem::path& run) {
  const std::string helps = how_to_get_weights(run);
  if (helps.empty()) return "";
  const bool is_done = MetricsFile(run / "metrics.jsonl").done().has_value();
  return (is_done ? "\nthe training has ended, and its adapter is gone: "
                  : "\nthe training has not ended: the same command as began it goes on; ") +
         helps;
}

}  // namespace

void use_trained_weights(const JobInputs& in, Model& model) {
  if (names_checkpoint(in.config.run)) return use_checkpoint(in, model);
  if (!model.adapter() || !in.config.adapter.load.empty()) return start_from_saved_adapter(in.config, model);
  const std::filesystem::path trained = run_folder_path(in) / "adapter";
  if (!std::filesystem::exists(trained / "adapter.json"))
    throw UserError(
        in.recipe.where("adapter", "load"),
        fmt::format("there is no trained adapter: adapter.load is not set and \"{}\" holds none", trained.string()),
        "set adapter.load to a folder that a training wrote, or adapter.method=none for the base model alone" +
            way_to_weights(run_folder_path(in)) +
            (in.recipe.said("fold").empty() ? ""
                                            : "\nthe folded model of the recipe's [fold] is made by job=compress"));
  load_adapter(trained, model, "run.dir");
  if (in.world.rank() == 0 && !in.quiet) fmt::print(stderr, "the adapter that the run trained: {}\n", trained.string());
}

}  // namespace tessera
