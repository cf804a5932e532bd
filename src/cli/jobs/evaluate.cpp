// job = "evaluate": loss and accuracy of what a training left, or of a model as it is, on held-out data.

#include <cmath>

#include "cli/agreement.h"
#include "cli/datasets.h"
#include "cli/model_settings.h"
#include "cli/notices.h"
#include "cli/plan.h"
#include "cli/recipe_rules.h"
#include "cli/trained_weights.h"
#include "core/error.h"
#include "io/output.h"
#include "score/evaluate.h"
#include "score/evaluation.h"
#include "train/steps.h"

namespace tessera {
namespace {

JobPlan plan_evaluate(const JobInputs& in) {
  JobPlan plan = plan_of_results(in, in.config.trainer.train.sequence_length);
  plan.memory.activations = plan_evaluation(in, *plan.model);
  plan.memory.data = plan_data(in, false);
  return plan;
}

std::string smaller_evaluation(const JobConfig& config, const MemoryPlan& plan) {
  return matters(plan.activations, plan) ? lower_rows(config) : "use a machine with more memory";
}

int evaluate_results(const JobInputs& in) {
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
  tell(in, model.sharing().caution());
  tell(in, length_notice(model, "rows", in.config.trainer.train.sequence_length));
  use_trained_weights(in, model);
  require_agreement(in, model, sets);
  const int64_t rows = micro_batch_rows(in.config.trainer.train, in.share.count);
  const Compute compute(compute_choice(in), memory.activations);
  const Context& ctx = compute;
  model.assemble(ctx);
  const LossSums sums = evaluate(ctx, model, *sets.eval, in.world, in.share, rows, in.config.trainer.evaluate.rows);
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

void check_evaluation(Recipe& recipe, const JobConfig& c) {
  if (!c.data.has_eval()) recipe.fault("data", "eval", "data.eval is not set", "name the file to evaluate on");
  if (c.data.eval.empty() && c.data.eval_fraction > 0) require_train_data(recipe, c.data);
}

}  // namespace

Job evaluate_job() {
  return {.name = "evaluate",
          .help = "loss and accuracy on data.eval",
          .run = evaluate_results,
          .plan = plan_evaluate,
          .smaller = smaller_evaluation,
          .reads_data = true,
          .samples = {Split::eval},
          .reads_results = true,
          .check = check_evaluation};
}

}  // namespace tessera
