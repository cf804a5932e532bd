#include "cli/summary.h"

namespace tessera {
namespace {

/// Parameters of a plain LoRA of the rank that the adapter's layers work with.
int64_t lora_parameters(const AdapterWeights& adapter) {
  int64_t count = 0;
  for (const auto& delta : adapter.by_weight)
    if (delta) count += delta->a->shape().count() + delta->bt->shape().count();
  return count;
}

}  // namespace

void say_plan(Reporter& report, const JobInputs& in, Model& model, const MemoryPlan& memory, const Datasets& sets,
              int64_t steps) {
  const JobConfig& config = in.config;
  report.say(fmt::format("{}: {} layers of width {}, {} parameters; trained: {} ({})",
                         in.config.model.path.filename().string(), model.config().num_hidden_layers,
                         model.config().hidden_size, dense_parameters(model), model.pool().trainable_count(),
                         config.adapter.method != "none"   ? config.adapter.method
                         : config.sharing.method != "none" ? config.sharing.method
                                                           : "all"));
  for (const std::string& note : model.notes()) report.say(note);
  report.say(fmt::format("data: {} rows of {} tokens, {:.1f} % filled; {} steps of {} rows on {} ranks x {} threads",
                         sets.train->rows(), sets.train->sequence_length(), 100 * sets.train->fill(), steps,
                         in.config.trainer.train.batch, in.world.size(), in.threads));
  report.say(fmt::format(
      "memory a rank: weights and gradients {}, optimizer {}, activations {}, assembled {}; mapped once a machine: {}",
      megabytes(memory.weights_and_gradients), megabytes(memory.optimizer), megabytes(memory.activations),
      megabytes(memory.assembled), megabytes(memory.mapped)));
  if (in.config.trainer.train.estimator == "spsa")
    report.say(fmt::format("sent by a machine in a round: {}; no gradients, no saved activations",
                           megabytes(wire_bytes_per_step(in, model))));
  else
    report.say(fmt::format("all-reduced a step: {}", megabytes(wire_bytes_per_step(in, model))));
  if (const std::string notice = length_notice(in, model); !notice.empty()) report.say(notice);
}

void say_outcome(Reporter& report, Model& model, const TrainOutcome& outcome, Objective objective) {
  const LossSums &first = outcome.meta.first_eval, &last = outcome.meta.last_eval;
  if (last.completions > 0)
    report.say(fmt::format("held-out completions right: {:.1f} % before, {:.1f} % after", 100 * first.exact_match(),
                           100 * last.exact_match()));
  if (last.choices > 0)
    report.say(fmt::format("held-out choices right: {:.1f} % before, {:.1f} % after", 100 * first.accuracy(),
                           100 * last.accuracy()));
  if (last.scored > 0)
    report.say(fmt::format("held-out loss: {:.4f} before, {:.4f} after", first.mean_loss(objective),
                           last.mean_loss(objective)));
  if (last.scored > 0 && last.mean_loss(objective) > 1.02 * first.mean_loss(objective))
    report.say("warning: the held-out loss rose: lower optimizer.lr (a round with fewer votes bears less)");
  if (!model.bound_adapter()) return;
  const int64_t trained = model.pool().trainable_count(), base = dense_parameters(model);
  const int64_t lora = lora_parameters(model.bound_adapter()->weights());
  const auto percent = [&](int64_t whole) { return 100.0 * static_cast<double>(trained) / static_cast<double>(whole); };
  report.say(fmt::format("trained {} parameters: {:.1f} % of a LoRA of the same rank ({}), {:.2f} % of the model ({})",
                         trained, percent(lora), lora, percent(base), base));
}

Json done_line(const TrainOutcome& outcome, Model& model, Objective objective) {
  Json line = Json::object()
                  .set("event", "done")
                  .set("step", outcome.meta.step)
                  .set("loss", outcome.meta.last_loss)
                  .set("tokens", outcome.meta.tokens)
                  .set("seconds", outcome.meta.seconds)
                  .set("trained_parameters", model.pool().trainable_count());
  const auto add = [&](const std::string& suffix, const LossSums& sums) {
    if (sums.scored == 0) return;
    line.set("eval_loss" + suffix, sums.mean_loss(objective))
        .set("eval_token_accuracy" + suffix, sums.token_accuracy());
    if (sums.completions > 0) line.set("eval_exact_match" + suffix, sums.exact_match());
    if (sums.choices > 0) line.set("eval_accuracy" + suffix, sums.accuracy());
  };
  add("_before", outcome.meta.first_eval);
  add("", outcome.meta.last_eval);
  return line;
}

}  // namespace tessera
