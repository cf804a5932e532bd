#include "compress/gate_trainer.h"

#include <algorithm>
#include <cmath>

#include "compress/broken_block.h"
#include "compress/calibration.h"
#include "core/device/memory.h"
#include "core/error.h"
#include "model/weight_set.h"
#include "train/backprop.h"

namespace tessera {
namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kAdamEps = 1e-8;
constexpr int64_t kAscentEvery = 10;

BackpropOptions gated_options(const TrainConfig& train, const BlockGates& gates, TensorView grads) {
  return {.checkpoint_activations = train.checkpoint_activations, .dropout = {}, .gates = gates, .gate_grads = grads};
}

}  // namespace

GateTrainer::GateTrainer(const StageInputs& in, const GateUnits& units, GateState state)
    : in_(in),
      units_(units),
      constraint_(units.costs, 1 - in.fold.trained_remove(), in.fold.gate_weight),
      state_(std::move(state)) {
  TS_CHECK(state_.theta.size() == units.count(), "{} gates of {}", state_.theta.size(), units.count());
}

std::vector<double> GateTrainer::gates() const {
  const double eps = gate_eps(state_.step + 1, in_.fold.gate_steps, in_.fold.gate_eps_end);
  std::vector<double> values = units_.ones();
  for (size_t i = 0; i < values.size(); ++i)
    if (units_.is_trained[i]) values[i] = gate_value(state_.theta[i], eps);
  return values;
}

bool GateTrainer::take_step() {
  const std::vector<double> values = gates();
  const double eps = gate_eps(state_.step + 1, in_.fold.gate_steps, in_.fold.gate_eps_end);
  const Sums sums = sums_of_step(values);
  loss_ = sums.nll / sums.scored;
  kept_ = constraint_.kept(values);
  ++state_.step;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!units_.is_trained[i]) continue;
    const double dgate = sums.grads[i] / sums.scored + constraint_.slope(i, kept_, state_.mu);
    move(i, gradient_through_clamp(state_.theta[i], dgate * gate_slope(state_.theta[i], eps)));
  }
  note_falls(values);
  if (state_.step % kAscentEvery == 0) {
    state_.mu = constraint_.ascended(kept_, state_.mu);
    state_.curve.push_back(state_.theta);
  }
  return sums.stop;
}

void GateTrainer::move(size_t gate, double gradient) {
  double& first = state_.first[gate];
  double& second = state_.second[gate];
  first = kBeta1 * first + (1 - kBeta1) * gradient;
  second = kBeta2 * second + (1 - kBeta2) * gradient * gradient;
  const auto step = static_cast<double>(state_.step);
  const double mean = first / (1 - std::pow(kBeta1, step)), square = second / (1 - std::pow(kBeta2, step));
  state_.theta[gate] -= in_.fold.gate_lr * mean / (std::sqrt(square) + kAdamEps);
}

void GateTrainer::note_falls(std::span<const double> before) {
  const std::vector<double> now = gates();
  for (size_t i = 0; i < now.size(); ++i)
    if (before[i] >= 0.5 && now[i] < 0.5) state_.fallen.push_back({state_.step, static_cast<int64_t>(i)});
}

/// This rank's rows of the step, a pass at a time, so that memory does not grow with the step's rows. The calibration
/// rows, which losses are measured on, stand in front.
void GateTrainer::for_each_batch(const std::function<void(const PackedBatch&)>& f) const {
  const int64_t first = in_.fold.calibration_rows + state_.step * in_.fold.gate_batch;
  for_each_pass(in_, first, in_.fold.gate_batch, [&](const PackedBatch& batch) {
    f(batch);
    return true;
  });
}

GateTrainer::Sums GateTrainer::sums_of_step(std::span<const double> gates) {
  const auto count = static_cast<int64_t>(gates.size());
  std::vector<double> sums(gates.size() + 3, 0.0);
  const Tensor grads({count}, in_.model.decoder().activations(), in_.ctx.device);
  for_each_batch([&](const PackedBatch& batch) {
    zero(grads);
    const LossSums scored =
        backprop_batch(in_.ctx, in_.model, batch, gated_options(in_.train, units_.gates(gates), grads));
    const OnHost host(grads.view());
    for (int64_t i = 0; i < count; ++i) sums[static_cast<size_t>(i)] += element(host.view(), i);
    sums[gates.size()] += scored["nll"];
    sums[gates.size() + 1] += scored["scored"];
  });
  sums.back() = in_.stop_requested() ? 1 : 0;
  sums = sum_over_ranks(in_.world, sums);
  Sums all{.nll = sums[gates.size()],
           .scored = std::max(1.0, sums[gates.size() + 1]),
           .stop = sums.back() > 0,
           .grads = {sums.begin(), sums.begin() + count}};
  const bool is_whole = std::ranges::all_of(sums, [](double sum) { return std::isfinite(sum); });
  if (!is_whole) refuse(all, gates);
  return all;
}

void GateTrainer::refuse(const Sums& sums, std::span<const double> gates) {
  std::vector<double> last = {-static_cast<double>(units_.layers)};  // the maximum of what is negated: the first block
  for_each_batch([&](const PackedBatch& batch) {
    last[0] =
        std::max(last[0], -static_cast<double>(first_broken_block(in_.ctx, in_.model, batch, units_.gates(gates))));
  });
  in_.world.all_reduce_max(last);
  const auto block = static_cast<int64_t>(-last[0]);
  std::string what = fmt::format("block {} gives a number that is not finite", block);
  if (block == units_.layers) {  // forward passes are whole: the gradient broke on its way down
    const auto broken =
        std::find_if(sums.grads.rbegin(), sums.grads.rend(), [](double g) { return !std::isfinite(g); });
    const int64_t unit = sums.grads.rend() - broken - 1;
    what = broken == sums.grads.rend()
               ? "the loss behind the last block is not finite"
               : fmt::format("the gradient of block {}'s gate is not finite", unit / units_.halves());
  }
  const std::string base = in_.model.broken_base_weight();
  throw UserError(fmt::format("step {} of the gates", state_.step + 1), what + (base.empty() ? "" : ": " + base),
                  base.empty() ? "the step was not taken; lower fold.gate_lr" : "the base model is damaged");
}

std::string GateTrainer::progress() const {
  return fmt::format("gates: step {} of {}, loss {:.4f}, kept cost {:.3f} of at most {:.3f}, mu {:.3f}", state_.step,
                     in_.fold.gate_steps, loss_, kept_, constraint_.target(), state_.mu);
}

int64_t plan_gate_bytes(const StageSizes& sizes) {
  Model& model = sizes.model;
  const GateUnits units = gate_units(sizes.fold, model.decoder().specs(), model.decoder().num_layers());
  const std::vector<double> ones = units.ones();
  const int64_t rows = rows_of_pass(sizes.train, sizes.fold.gate_batch, sizes.ranks);
  const Tensor grads({static_cast<int64_t>(ones.size())}, model.decoder().activations(), model.pool().device());
  return plan_widest(rows, sizes.train.sequence_length, model.pool().device(), sizes.threads,
                     [&](const Context& ctx, const PackedBatch& batch) {
                       backprop_batch(ctx, model, batch, gated_options(sizes.train, units.gates(ones), grads));
                     });
}

}  // namespace tessera
