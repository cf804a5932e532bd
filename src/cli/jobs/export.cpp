// job = "export": what a training left as a dense Hugging Face folder, or for PEFT.

#include <algorithm>

#include "cli/folded_run.h"
#include "cli/going_on.h"
#include "cli/inputs.h"
#include "cli/model_settings.h"
#include "cli/notices.h"
#include "cli/outputs.h"
#include "cli/plan.h"
#include "cli/results.h"
#include "cli/run_path.h"
#include "cli/trained_weights.h"
#include "core/error.h"
#include "io/output.h"
#include "model/adapter_io.h"
#include "model/export.h"

namespace tessera {
namespace {

/// Asked for beside the merged model, or in its place.
bool writes_other_forms(const JobInputs& in) {
  const bool has_adapter = in.config.adapter.method != "none";
  const bool is_trained = has_adapter || in.config.sharing.method != "none" || names_checkpoint(in.config.run);
  return (in.config.exports.peft && has_adapter) || (is_trained && exports_native(in.config, in.recipe));
}

/// The merged model is what the job is for: a recipe that a run stored spells out export.merged = false, which is the
/// run's default. It is left out where another form is asked for in its place, and where the command line says so.
bool merges(const JobInputs& in) {
  if (in.config.exports.merged || !in.recipe.has("export", "merged")) return true;
  return !writes_other_forms(in) && !in.recipe.where("export", "merged").starts_with("command line");
}

void require_something_to_export(const JobInputs& in) {
  if (merges(in) || writes_other_forms(in)) return;
  throw UserError(
      in.recipe.where("export", "merged"), "there is nothing to export: export.merged is false",
      "add export.merged=true, export.peft=true where there is an adapter, or export.native=true where there "
      "is an adapter or [sharing]");
}

JobPlan plan_export(const JobInputs& in) {
  const bool is_trained = names_checkpoint(in.config.run) || in.config.sharing.method != "none";
  JobPlan plan =
      is_trained ? plan_of_results(in, kExportPositions) : plan_of_model(model_settings(in, kExportPositions));
  plan.memory.activations = kExportScratch;
  plan.memory.results = std::max(merges(in) ? plan_merged_bytes(*plan.model) : 0, plan_results(in, *plan.model));
  plan.one_rank = true;
  return plan;
}

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

int export_trained(const JobInputs& in) {
  if (in.world.rank() != 0) return kDone;
  require_free_outputs(in);
  require_folded_model(in);
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
  const Compute compute(compute_choice(in), memory.activations);
  const Context& ctx = compute;
  model.assemble(ctx);
  if (exports_native(in.config, in.recipe)) export_native(model, folder.path());
  if (merges(in)) {
    const Written result = write_model(in, ctx, model, folder.path());
    print_out("{}: {}\n", dense_notice(model), result.folder.string());
    tell(in, rounded_notice(result));
  }
  if (in.config.exports.peft && model.adapter()) {
    export_peft(folder / "peft", model);
    print_out("PEFT adapter: {}\n", (folder / "peft").string());
  } else if (in.config.exports.peft && in.recipe.given_text("adapter", "method") != "none") {  // that was told
    tell(in, "note: export.peft does nothing: what is exported has no adapter beside its weights");
  }
  return kDone;
}

}  // namespace

Job export_job() {
  return {
      .name = "export",
      .help =
          "write the trained adapter merged into the model as a Hugging Face folder, and with export.peft=true for PEFT",
      .run = export_trained,
      .plan = plan_export,
      .smaller = smaller_writing,
      .reads_results = true,
      .results = JobResults::model,
      .frees_results = true,
      .look = [](const JobInputs& in, Model*) {
        require_something_to_export(in);
        refuse_base_export(in);
      }};
}

}  // namespace tessera
