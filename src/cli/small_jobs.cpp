// The jobs that are a few lines each: prepare, evaluate, export.

#include <algorithm>
#include <cmath>

#include "cli/going_on.h"
#include "cli/inputs.h"
#include "cli/outputs.h"
#include "cli/plan.h"
#include "cli/results.h"
#include "io/output.h"
#include "kernels/table.h"
#include "model/adapter_io.h"
#include "model/export.h"
#include "score/evaluate.h"
#include "score/evaluation.h"

namespace tessera {

const std::vector<Job>& jobs() {
  static const std::vector<Job> all = {
      {"train", "fine-tune or train a model", train_job, plan_train, smaller_training},
      {"prepare", "tokenize the data into the cache and stop", prepare_job, plan_prepare, smaller_preparation},
      {"evaluate", "loss and accuracy on data.eval", evaluate_job, plan_evaluate, smaller_evaluation},
      {"generate", "continue prompts", generate_job, plan_generate, smaller_generation},
      {"export",
       "write the trained adapter merged into the model as a Hugging Face folder, and with export.peft=true for PEFT",
       export_job, plan_export, smaller_export},
      {"replay", "rebuild the weights of an SPSA run at any round from the base model and its log, or branch off there",
       replay_job, plan_replay, smaller_export},
  };
  return all;
}

const Job& job_of(const JobConfig& config) {
  const auto job = std::find_if(jobs().begin(), jobs().end(), [&](const Job& j) { return j.name == config.job; });
  TS_CHECK(job != jobs().end(), "job \"{}\" passed the recipe's check", config.job);
  return *job;
}

int prepare_job(const JobInputs& in) {
  require_memory(in, plan_prepare(in));
  const Datasets sets = load_datasets(in, true);
  if (in.world.rank() != 0 || in.quiet) return kDone;
  const auto say = [&](const char* name, const PackedDataset& set) {
    print_out("{}: {} rows of {} tokens, {} scored tokens, {:.1f} % filled, hash {}\n", name, set.rows(),
              set.sequence_length(), set.scored_tokens(), 100 * set.fill(), set.hash());
  };
  for (const std::string& notice : sets.notices) print_out("{}\n", notice);
  say("train", *sets.train);
  if (sets.eval) say("eval", *sets.eval);
  return kDone;
}

int evaluate_job(const JobInputs& in) {
  const Datasets sets = load_datasets(in, false);
  if (!sets.eval)
    throw UserError(in.recipe.where("data", "eval"), "data.eval is not set", "name the file to evaluate on");
  const MemoryPlan memory = require_memory(in, plan_evaluate(in));
  const Model::Settings settings = trained_model_settings(in, in.config.trainer.train.sequence_length);
  const bool is_recipes =
      settings.model.path == in.config.model.path && settings.sharing.load == in.config.sharing.load;
  require_equal(in.world, "whether run.dir holds a trained model", is_recipes ? "no" : "yes");
  Model model(settings);
  require_known_tokens(in, model, sets);
  for (const std::string& notice : sets.notices) tell(in, notice);
  tell(in, length_notice(model, "rows", in.config.trainer.train.sequence_length));
  use_trained_weights(in, model);
  require_agreement(in, model, sets);
  const int64_t rows = micro_batch_rows(in.config.trainer.train, in.world.size());
  Arena arena(memory.activations);
  const Context ctx{.device = {},
                    .stream = {},
                    .kernels = kernels_for({}, in.config.run.backend),
                    .scratch = arena,
                    .threads = in.threads};
  model.assemble(ctx);
  const LossSums sums = evaluate(ctx, model, *sets.eval, in.world, rows, in.config.trainer.evaluate.rows);
  const Objective& objective = objective_of(in.config.trainer.train.objective);
  if (!std::isfinite(objective.mean(sums))) {
    const std::string broken = model.broken_base_weight();
    throw UserError("data.eval", "the loss is not finite" + (broken.empty() ? "" : ": " + broken),
                    "the base model is damaged, or the adapter's training diverged");
  }
  if (in.world.rank() != 0) return kDone;
  if (const std::string note = left_out_notice(*sets.eval, "the held-out data"); !note.empty() && !in.quiet)
    fmt::print(stderr, "{}\n", note);
  print_out("{}\n", result_line(sums, objective).dump());
  return kDone;
}

namespace {

/// What adapter.load or sharing.load takes, which the run itself writes at its end only.
void export_native(Model& model, const std::filesystem::path& folder) {
  if (model.adapter()) {
    save_adapter(folder / "adapter", model);
    print_out("adapter: {}\n", (folder / "adapter").string());
  } else if (model.is_shared()) {
    save_sharing(folder / "sharing", model);
    print_out("shared weights: {}\n", (folder / "sharing").string());
  }
}

/// A recipe that a run stored spells out export.merged = false, and with it job=export may have nothing left to do.
void require_something_to_export(const JobInputs& in) {
  const ExportConfig& e = in.config.exports;
  const bool merges = e.merged || !in.recipe.has("export", "merged");
  const bool writes_peft = e.peft && in.config.adapter.method != "none";
  if (merges || writes_peft || (e.native && names_checkpoint(in.config.run))) return;
  throw UserError(in.recipe.where("export", "merged"), "there is nothing to export: export.merged is false",
                  "add export.merged=true, or export.peft=true where there is an adapter");
}

}  // namespace

int export_job(const JobInputs& in) {
  if (in.world.rank() != 0) return kDone;
  require_free_outputs(in);
  require_something_to_export(in);
  const MemoryPlan memory = require_memory(in, plan_export(in));
  const bool is_checkpoint = names_checkpoint(in.config.run), is_shared = in.config.sharing.method != "none";
  Model model(is_checkpoint || is_shared ? trained_model_settings(in, kExportPositions)
                                         : model_settings(in, kExportPositions));
  use_trained_weights(in, model);
  // Of a checkpoint, into a new folder: what the run left at its end stays.
  RunFolder folder(run_folder_path(in), is_checkpoint ? in.config.run.resume : "auto", teller(in));
  tell(in, folder.notice());
  refuse_base_export(in);
  refuse_overwritten_inputs(in, folder.path());
  Arena arena(memory.activations);
  const Context ctx{.device = {},
                    .stream = {},
                    .kernels = kernels_for({}, in.config.run.backend),
                    .scratch = arena,
                    .threads = in.threads};
  model.assemble(ctx);
  const bool merges = in.config.exports.merged || !in.recipe.has("export", "merged");
  if (is_checkpoint && in.config.exports.native) export_native(model, folder.path());
  if (merges) {
    const Written result = write_model(in, ctx, model, folder.path());
    print_out("{}: {}\n", dense_notice(model), result.folder.string());
    tell(in, rounded_notice(result));
  }
  if (in.config.exports.peft && model.adapter()) {
    export_peft(folder / "peft", model);
    print_out("PEFT adapter: {}\n", (folder / "peft").string());
  }
  return kDone;
}

}  // namespace tessera
