// A log holds votes and perhaps losses, but no evaluations and no times. What a run that goes on knows of itself is put
// together here: figures.json first, metrics.jsonl for the rest, and the log for what neither tells.

#include "train/spsa/restored_run.h"

#include <algorithm>

#include "core/decimal.h"
#include "score/evaluation.h"
#include "train/spsa/figures.h"
#include "train/spsa/told_metrics.h"
#include "train/steps.h"

namespace tessera {
namespace {

/// What the files in the run's folder tell.
Restored remembered_run(const TrainerInputs& in, const Replica& replica, const StepLog& log, const RowsOfRound& rows) {
  const int64_t step = replica.round();
  const Objective& objective = objective_of(in.config.train.objective);
  const ToldMetrics told = read_told_metrics(*in.folder / "metrics.jsonl", step, objective);
  Restored run{.meta = told.meta, .lines = untold_rounds(log, told.last_step, replica.header().bytes_per_probe())};
  const Json* untold = run.lines.empty() ? nullptr : run.lines.back().find("loss");
  if (untold) run.meta.last_loss = untold->as_number();
  // Figures are sums and exact; metrics are rounded for readers. Only times are in the metrics alone.
  if (auto kept = read_figures(in.folder->path(), step)) {
    kept->seconds = run.meta.seconds;
    kept->last_loss = run.meta.last_loss;
    run.meta = *kept;
    if (kept->evaluated_at > told.last_evaluation)  // killed before it was told
      run.lines.push_back(evaluation_line(kept->evaluated_at, kept->last_eval, objective));
  }
  const RoundsRead read = rows_read(log, run.meta.step, rows.of_machine);
  const int64_t not_in_log = step - run.meta.step - read.rounds;  // dropped, by a program that kept no figures
  run.meta.rows_consumed += read.rows + not_in_log * rows.all();
  return run;
}

/// Steps of the whole run: those done, and with train.epochs what is left of these,
/// however many machines there were before.
int64_t steps_after(const TrainerInputs& in, int64_t done, int64_t rows, int64_t a_step) {
  // The usual case: the recipe says how many, or the rows that were read are those of as many equal steps.
  if (in.config.train.steps || rows == done * a_step) return total_steps(in);
  const int64_t all = ceil_of_share(in.config.train.epochs.value_or(1.0), in.data.rows());
  return done + (std::max<int64_t>(0, all - rows) + a_step - 1) / a_step;
}

}  // namespace

Restored restored_run(const TrainerInputs& in, const Replica& replica, const StepLog* log, const RowsOfRound& rows) {
  Restored run;
  const int64_t step = replica.round();
  if (in.folder) run = remembered_run(in, replica, *log, rows);
  const double seconds = run.meta.seconds, last_loss = run.meta.last_loss;
  // Ranks decide alike only by the same figures.
  run.meta = meta_of_figures(Json::parse(broadcast_text(in.world, figures_of(run.meta).dump()), "the run's figures"));
  run.figures_file = kFiguresFile;
  run.meta.seconds = seconds;
  run.meta.last_loss = last_loss;
  run.meta.step = step;
  run.meta.tokens = run.meta.rows_consumed * in.data.sequence_length();
  const int64_t every = in.config.evaluate.every;
  run.steps = steps_after(in, step, run.meta.rows_consumed, rows.all());
  const bool due = step == run.steps || (every > 0 && step % every == 0);
  run.owes_evaluation = due && run.meta.evaluated_at < step;
  return run;
}

}  // namespace tessera
