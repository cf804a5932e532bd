#include "compress/replace_trainer.h"

#include <algorithm>
#include <cmath>

#include "compress/calibration.h"
#include "core/device/memory.h"
#include "core/error.h"
#include "train/gradients.h"

namespace tessera {
namespace {

constexpr int64_t kMeasurements = 10;  // of a phase, behind that at its beginning

/// What the objectives do not share.
struct Constants {
  double beta2, clip;
};
Constants constants_of(ReplaceObjective objective) {
  return objective == ReplaceObjective::mse ? Constants{.beta2 = 0.999, .clip = 5}
                                            : Constants{.beta2 = 0.95, .clip = 1};
}

OptimizerConfig optimizer_of(const FoldConfig& fold, ReplaceObjective objective) {
  OptimizerConfig config;
  config.name = "adamw";
  config.lr = fold.replace_lr;
  config.beta1 = 0.9;
  config.beta2 = constants_of(objective).beta2;
  config.weight_decay = 1e-3;
  config.schedule = "cosine";
  config.final_ratio = 0.25;
  return config;
}

}  // namespace

std::string_view name_of(ReplaceObjective objective) { return objective == ReplaceObjective::mse ? "mse" : "end"; }

std::vector<ReplaceObjective> replace_phases(const FoldConfig& fold) {
  if (fold.replace == "both") return {ReplaceObjective::mse, ReplaceObjective::end};
  return {fold.replace == "mse" ? ReplaceObjective::mse : ReplaceObjective::end};
}

int64_t replace_interval(const FoldConfig& fold) {
  return std::max<int64_t>(1, (fold.replace_steps + kMeasurements - 1) / kMeasurements);
}

BlockError calibration_error(const StageInputs& in, const ReplacedRun& run, Model& student, const PairSource& pairs) {
  const std::vector<double> total =
      sums_over_calibration_rows(in, "measuring the block in place of a run", [&](const PackedBatch& batch) {
        const BlockError sums = block_error(in.ctx, student, run, batch, pairs, Backward::no);
        return std::vector{sums.error, sums.distance, sums.numbers};
      });
  return {.error = total[0], .distance = total[1], .numbers = total[2]};
}

BlockTrainer::BlockTrainer(const StageInputs& in, const ReplacedRun& run, Model& student, PairSource pairs)
    : in_(in),
      run_(run),
      student_(student),
      pairs_(std::move(pairs)),
      phases_(replace_phases(in.fold)),
      params_(student.pool().trainable()),
      best_(params_.values.shape, DType::f32, student.pool().device()) {
  copy(params_.values, best_);
  begin_phase(0);
}

bool BlockTrainer::is_done() const {
  return state_.step == steps() && !owes_measurement() && state_.phase + 1 == static_cast<int64_t>(phases_.size());
}

bool BlockTrainer::owes_measurement() const {
  const bool is_due = state_.step == steps() || state_.step % replace_interval(in_.fold) == 0;
  return is_due && state_.evaluated != state_.step;
}

bool BlockTrainer::advance() {
  has_stepped_ = false;
  if (owes_measurement()) {
    measure();
    if (is_done()) copy(best_, params_.values);
    return false;
  }
  if (state_.step == steps()) {
    begin_phase(state_.phase + 1);
    return false;
  }
  has_stepped_ = true;
  return take_step();
}

/// From the best block so far, with a new optimizer.
void BlockTrainer::begin_phase(int64_t phase) {
  state_.phase = phase;
  state_.step = 0;
  state_.evaluated = -1;
  state_.best = ReplaceState{}.best;
  state_.train_sum = state_.train_count = 0;
  copy(best_, params_.values);
  renew_optimizer();
}

void BlockTrainer::go_on(ReplaceState state) {
  state_ = std::move(state);
  renew_optimizer();
}

void BlockTrainer::renew_optimizer() {
  config_ = optimizer_of(in_.fold, objective());
  optimizer_ = make_optimizer(config_, params_.values.shape.count(), kNewestRules, student_.pool().device());
}

double BlockTrainer::validation_loss() {
  if (objective() == ReplaceObjective::mse) {
    const BlockError sums = calibration_error(in_, run_, student_, pairs_);
    return sums.error / sums.numbers;
  }
  const std::vector<double> total =
      sums_over_calibration_rows(in_, "measuring the block in place of a run", [&](const PackedBatch& batch) {
        const LossSums sums = score_batch(in_.ctx, student_, batch);
        return std::vector{sums["nll"], sums["scored"]};
      });
  return total[0] / std::max(1.0, total[1]);
}

void BlockTrainer::measure() {
  const double loss = validation_loss();
  if (!std::isfinite(loss)) refuse("the loss of the calibration rows is not finite");
  state_.curve.push_back({.phase = state_.phase,
                          .step = state_.step,
                          .train = state_.train_count > 0 ? state_.train_sum / state_.train_count : 0,
                          .validation = loss});
  state_.train_sum = state_.train_count = 0;
  state_.evaluated = state_.step;
  if (loss >= state_.best) return;
  state_.best = loss;
  copy(params_.values, best_);
}

bool BlockTrainer::take_step() {
  student_.pool().zero_grads();
  double loss = 0, count = 0;
  const Keep keep = in_.train.checkpoint_activations ? Keep::inputs : Keep::everything;
  // The calibration rows, which the block is measured on, stand in front of those that it is trained on.
  const int64_t done = state_.phase * steps() + state_.step;
  const int64_t first = in_.fold.calibration_rows + done * in_.train.batch;
  for_each_pass(in_, first, in_.train.batch, [&](const PackedBatch& batch) {
    if (objective() == ReplaceObjective::mse) {
      const BlockError sums = block_error(in_.ctx, student_, run_, batch, pairs_, Backward::yes);
      loss += sums.error, count += sums.numbers;
    } else {
      const LossSums sums = backprop_to_block(in_.ctx, student_, run_, batch, keep);
      loss += sums["nll"], count += sums["scored"];
    }
    return true;
  });
  all_reduce_grads(in_.world, params_);
  const auto sums = sum_over_ranks(in_.world, {loss, count, in_.stop_requested() ? 1.0 : 0.0});
  const double numbers = std::max(1.0, sums[1]), norm = std::sqrt(squared_norm(in_.ctx, params_)) / numbers;
  if (!std::isfinite(sums[0]) || !std::isfinite(norm)) refuse("the loss or the gradient is not finite");
  const double clip = constants_of(objective()).clip, factor = norm > clip ? clip / norm : 1.0;
  ++state_.step;
  const auto rate = static_cast<float>(learning_rate(config_, state_.step, steps()));
  optimizer_->step(in_.ctx, params_, {state_.step, rate, static_cast<float>(factor / numbers)});
  state_.train_sum += sums[0] / numbers;
  state_.train_count += 1;
  return sums[2] > 0;
}

void BlockTrainer::refuse(const std::string& what) const {
  const std::string base = student_.broken_base_weight();
  throw UserError(
      fmt::format("step {} of the block in place of blocks {} to {}", state_.step + 1, run_.first, run_.end - 1),
      what + (base.empty() ? "" : ": " + base),
      base.empty() ? "the step was not taken; lower fold.replace_lr" : "the base model is damaged");
}

std::string BlockTrainer::progress() const {
  const ReplacePoint& point = state_.curve.back();
  const std::string loss = point.step > 0 ? fmt::format("loss {:.6g}, ", point.train) : "";
  return fmt::format("replace: {}, step {} of {}, {}on the calibration rows {:.6g}, best {:.6g}",
                     name_of(phases_[static_cast<size_t>(point.phase)]), point.step, steps(), loss, point.validation,
                     state_.best);
}

NamedTensors BlockTrainer::tensors() {
  NamedTensors all = {{"/values", params_.values}, {"/best", best_}};
  optimizer_->visit_state(
      [&](const std::string& name, TensorView state) { all.emplace_back("/optimizer/" + name, state); });
  return all;
}

}  // namespace tessera
