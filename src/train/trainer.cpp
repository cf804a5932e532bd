//   restore -> (evaluate) -> take a step -> report -> evaluate when due -> checkpoint when due -> ... -> finish
// Every decision in here (to stop, to evaluate, to keep a checkpoint) is taken from what is equal on all ranks: steps
// and evaluations are full of collectives, and a rank that turned off alone would leave the others waiting.

#include "train/trainer.h"

#include <chrono>
#include <cmath>

#include "comm/stop_together.h"
#include "core/error.h"
#include "model/config_fingerprint.h"
#include "score/evaluate.h"
#include "score/evaluation.h"
#include "train/divergence.h"
#include "train/estimator.h"
#include "train/machine_share.h"
#include "train/steps.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class Loop {
 public:
  explicit Loop(const TrainerInputs& in)
      : in_(in),
        stepper_(estimator_of(in.config).make(in)),
        machine_(in),
        steps_(total_steps(in)),
        micro_rows_(micro_batch_rows(in.config.train, in.share.count)) {}

  TrainOutcome run() {
    resume_or_start();
    while (meta_.step < steps_ && !stopped_) {
      const auto start = Clock::now();
      const int64_t step = meta_.step + 1;
      // What goes over the wire in a step: the difference of the counters before and behind it.
      const int64_t traffic_before = in_.world.traffic().total_bytes();
      const auto report = stepper_->take(step);
      // Asked to stop before the step was done: it does not count, and is taken when the run goes on.
      if (!report) {
        stopped_ = true;
        break;
      }
      finish_step(step, *report, seconds_since(start), in_.world.traffic().total_bytes() - traffic_before);
      const bool last = step == steps_, evaluates = in_.eval && (last || due(in_.config.evaluate.every, step));
      stopped_ = report->stop && (!last || evaluates);  // else nothing is left to stop
      const bool is_best = evaluates && evaluate_or_owe();
      // A checkpoint is due by the recipe, at the end, when the run is left, and for the lowest loss so far where
      // checkpoint.best wants it.
      if (last || stopped_ || due(in_.config.checkpoint.every, step) || is_best) {
        check_files();
        stepper_->checkpoint(meta_, is_best);
      }
    }
    if (!stopped_) stepper_->finish();
    return {meta_, stopped_};
  }

 private:
  static bool due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

  /// Nothing is sealed under the fingerprint of weights that are others now.
  void check_files() {
    const std::string notice = in_.model.check_files();
    if (!notice.empty() && notice != told_of_files_) in_.report.say(told_of_files_ = notice);
  }

  void resume_or_start() {
    const auto saved = stepper_->restore();
    if (saved) meta_ = saved->meta;
    if (saved && saved->steps > 0) steps_ = saved->steps;
    // What is true of this process is stored from here on, whatever the file that it goes on from says.
    meta_.rules = in_.rules;
    meta_.ranks = in_.world.size();
    meta_.recipe = in_.recipe;
    meta_.data_hash = in_.data.hash();
    meta_.base_fingerprint = in_.base_fingerprint;
    meta_.config_fingerprint = config_fingerprint(in_.model.config());
    meta_.start_values = in_.start_values;
    in_.report.rewind(saved ? saved->meta.step : -1);
    if (saved && saved->meta.step > steps_)
      throw UserError("train.steps",
                      fmt::format("the run has {} steps behind it, train.steps is {}", saved->meta.step, steps_),
                      fmt::format("ask for more steps, or start anew with {}",
                                  estimator_of(in_.config).anew().by_resume ? "run.resume=never" : "another run.dir"));
    if (saved) {
      // Steps that were done and logged, and not told before the process died.
      for (const Json& line : saved->lines) in_.report.metric(line);
      // Decided below, by what was restored.
      meta_.owes_evaluation = 0;
      // Figures of held-out data that this recipe does not have any more would be told as its own.
      if (!in_.eval) forget_evaluations();
      if (in_.eval && is_another_set(*saved))
        begin_evaluations(*saved);
      else if (in_.eval && saved->owes_evaluation)
        evaluate_between_steps(Begins::no);
      return;
    }
    if (in_.eval) evaluate_or_owe();
  }

  void forget_evaluations() {
    meta_.first_eval = meta_.last_eval = {};
    meta_.best_loss = CheckpointMeta{}.best_loss;
    meta_.eval_set.clear();
    meta_.evaluated_at = -1;
  }

  /// Whether what is known of the run was found on other rows than those of this recipe, or nothing is known.
  bool is_another_set(const Restored& saved) const {
    const CheckpointMeta& meta = saved.meta;
    const std::string now = evaluation_set(*in_.eval, in_.config.evaluate.rows);
    return !meta.first_eval.has_scored() || (!meta.eval_set.empty() && meta.eval_set != now);
  }

  /// A new "before", and a new best.
  void begin_evaluations(const Restored& saved) {
    const bool were_others = saved.meta.first_eval.has_scored();
    const std::string& figures_file = saved.figures_file;
    in_.report.say(fmt::format(
        "{}: the figures that are told as \"before\" will be those of step {}, with which the run goes on",
        were_others ? "the held-out rows are others than the run's so far"
        : !saved.why_unevaluated.empty()
            ? saved.why_unevaluated
            : fmt::format("no earlier evaluation is known, since the run had no held-out data {}",
                          figures_file.empty() ? "so far" : "or " + figures_file + ", which keeps them, is gone"),
        meta_.step));
    forget_evaluations();
    evaluate_between_steps(Begins::yes);
  }

  void finish_step(int64_t step, const StepReport& report, double seconds, int64_t comm_bytes) {
    meta_.step = step;
    meta_.rows_consumed += report.rows;
    meta_.seconds += seconds;
    const int64_t tokens = report.rows * in_.data.sequence_length();
    meta_.tokens += tokens;
    meta_.last_loss = report.loss;
    untold_rows_ += report.rows;
    untold_seconds_ += seconds;
    if (const std::string limit = machine_.look(seconds, steps_ - step); !limit.empty()) in_.report.say(limit);
    Json line = Json::object()
                    .set("step", step)
                    .set("split", "train")
                    .set("loss", meta_.last_loss)
                    .set("lr", static_cast<double>(report.lr));
    for (const auto& [key, value] : report.extra.members()) line.set(key, value);
    line.set("tokens", meta_.tokens)
        .set("scored_tokens", report.scored)
        .set("tokens_per_second", static_cast<double>(tokens) / seconds);
    if (const auto share = machine_.of(report.rows, seconds)) line.set("machine_share", *share);
    in_.report.metric(
        line.set("step_seconds", seconds).set("comm_bytes", comm_bytes).set("peak_rss_bytes", peak_rss_bytes()));
    if (step % in_.config.log.every != 0 && step != steps_) return;
    const double rate = static_cast<double>(untold_rows_ * in_.data.sequence_length()) / untold_seconds_;
    const auto share = machine_.of(untold_rows_, untold_seconds_);
    in_.report.progress(fmt::format(
        "step {}/{}  loss {:.4f}  lr {:.2e}  {}  {:.0f} tokens/s{}  {:.0f} s", step, steps_, meta_.last_loss, report.lr,
        report.note, rate, share ? fmt::format(", {:.0f} % of the machine", 100 * *share) : "", meta_.seconds));
    untold_rows_ = 0;
    untold_seconds_ = 0;
  }

  enum class Begins { no, yes };  // whether later evaluations are compared with this one

  void evaluate_between_steps(Begins begins) {
    const bool is_best = evaluate_or_owe(begins);
    const bool is_elsewhere = stopped_ && !in_.resume_from.empty();  // the file may lie in another run's folder
    if (is_best || is_elsewhere) stepper_->checkpoint(meta_, is_best);
  }

  /// Evaluates, unless a stop is asked for before it is done: then the run owes it.
  /// @return whether checkpoint.best wants a checkpoint of it
  bool evaluate_or_owe(Begins begins = Begins::no) {
    // Owed first, paid afterwards: a checkpoint that a stop leaves in between says so.
    meta_.owes_evaluation = 1;
    if (stopped_) return false;
    try {
      const bool is_best = evaluate_now(begins);
      meta_.owes_evaluation = 0;
      // Ranks may hear of a signal at different times: any of them stops all, in the same place.
      stopped_ = any_asked(in_.world, in_.stop_requested && in_.stop_requested());
      return is_best && in_.config.checkpoint.best;
    } catch (const Stopped&) {
      stopped_ = true;
      return false;
    }
  }

  /// @return whether the loss is the lowest so far
  bool evaluate_now(Begins begins) {
    const LossSums sums = evaluate(in_.ctx, in_.model, *in_.eval, in_.world, in_.share, micro_rows_,
                                   in_.config.evaluate.rows, in_.stop_requested);
    // On every rank alike, since the sums are of all ranks: none goes on to a collective that another one misses.
    if (!are_finite(sums)) {
      refuse_broken_base(in_.model, meta_.step);
      throw UserError(fmt::format("step {}", meta_.step), "the held-out loss is not finite: " + name_broken(in_.model),
                      stepper_->way_out_of_divergence());
    }
    meta_.last_eval = sums;
    meta_.eval_set = evaluation_set(*in_.eval, in_.config.evaluate.rows);
    meta_.evaluated_at = meta_.step;
    // What later evaluations are compared with.
    if (meta_.step == 0 || begins == Begins::yes) meta_.first_eval = sums;
    const Objective& objective = objective_of(in_.config.train.objective);
    const double loss = objective.mean(sums);
    const bool is_best = loss < meta_.best_loss;
    meta_.best_loss = std::min(meta_.best_loss, loss);
    stepper_->keep_figures(meta_);  // first: what is kept and not told is told when the run goes on
    Json line = evaluation_line(meta_.step, sums, objective);
    if (begins == Begins::yes) line.set("before", true);
    in_.report.metric(line);
    in_.report.say(evaluation_text(meta_.step, sums, objective));
    return is_best;
  }

  const TrainerInputs& in_;
  std::unique_ptr<Stepper> stepper_;
  MachineShare machine_;
  int64_t steps_, micro_rows_;
  CheckpointMeta meta_;
  bool stopped_ = false;
  std::string told_of_files_;
  int64_t untold_rows_ = 0;  // since the last line of progress
  double untold_seconds_ = 0;
};

}  // namespace

TrainOutcome run_training(const TrainerInputs& inputs) { return Loop(inputs).run(); }

}  // namespace tessera
