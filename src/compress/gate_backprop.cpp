#include "compress/gate_backprop.h"

#include <algorithm>
#include <cmath>

#include "compress/calibration.h"
#include "core/device/memory.h"
#include "core/functions/functions.h"

namespace tessera {
namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kAdamEps = 1e-8;

BackpropOptions gated_options(const TrainConfig& train, const BlockGates& gates, TensorView grads) {
  return {.checkpoint_activations = train.checkpoint_activations, .dropout = {}, .gates = gates, .gate_grads = grads};
}

}  // namespace

bool BackpropGates::take_step() {
  const std::vector<double> values = gates();
  const Sums sums = sums_of_step(values);
  const double counted = constraint_.counted(values, bend());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!units_.is_trained[i]) continue;
    const double dgate = sums.grads[i] / sums.scored + constraint_.slope(i, values[i], bend(), counted, state_.mu);
    move(i, gradient_through_clamp(state_.theta[i], dgate * gate_slope(state_.theta[i], eps())));
  }
  end_step(sums.loss / sums.scored, values);
  return sums.stop;
}

void BackpropGates::move(size_t gate, double gradient) {
  double& first = state_.first[gate];
  double& second = state_.second[gate];
  first = kBeta1 * first + (1 - kBeta1) * gradient;
  second = kBeta2 * second + (1 - kBeta2) * gradient * gradient;
  const auto step = static_cast<double>(state_.step + 1);
  const double mean = first / (1 - functions::pow(kBeta1, step)), square = second / (1 - functions::pow(kBeta2, step));
  state_.theta[gate] -= in_.fold.gate_lr * mean / (std::sqrt(square) + kAdamEps);
}

/// This rank's rows of the step, a pass at a time, so that memory does not grow with the step's rows. The calibration
/// rows, which losses are measured on, stand in front.
void BackpropGates::for_each_batch(const std::function<void(const PackedBatch&)>& f) const {
  const int64_t first = in_.fold.calibration_rows + state_.step * in_.fold.gate_batch;
  for_each_pass(in_, first, in_.fold.gate_batch, [&](const PackedBatch& batch) {
    f(batch);
    return true;
  });
}

BackpropGates::Sums BackpropGates::sums_of_step(std::span<const double> gates) {
  const auto count = static_cast<int64_t>(gates.size());
  std::vector<double> sums(gates.size() + 3, 0.0);
  GateLossSums loss;
  const Tensor grads({count}, in_.model.decoder().activations(), in_.ctx.device);
  for_each_batch([&](const PackedBatch& batch) {
    zero(grads);
    loss = backprop_gates(in_.ctx, in_.model, batch, gate_loss_of(in_.fold),
                          gated_options(in_.train, units_.gates(gates), grads), loss);
    const OnHost host(grads.view());
    for (int64_t i = 0; i < count; ++i) sums[static_cast<size_t>(i)] += element(host.view(), i);
  });
  sums[gates.size()] = loss.loss;
  sums[gates.size() + 1] = loss.scored;
  sums.back() = in_.stop_requested() ? 1 : 0;
  sums = sum_over_ranks(in_.world, sums);
  Sums all{.loss = sums[gates.size()],
           .scored = std::max(1.0, sums[gates.size() + 1]),
           .stop = sums.back() > 0,
           .grads = {sums.begin(), sums.begin() + count}};
  const bool is_whole = std::ranges::all_of(sums, [](double sum) { return std::isfinite(sum); });
  if (!is_whole) refuse(all, gates);
  return all;
}

void BackpropGates::refuse(const Sums& sums, std::span<const double> gates) {
  const int64_t block = broken_block([&](const auto& f) { for_each_batch(f); }, gates);
  const auto broken = std::find_if(sums.grads.rbegin(), sums.grads.rend(), [](double g) { return !std::isfinite(g); });
  if (block < units_.layers || broken == sums.grads.rend()) refuse_step(name_broken(block));
  const int64_t unit = sums.grads.rend() - broken - 1;  // forward passes are whole: it broke on its way down
  refuse_step(fmt::format("the gradient of block {}'s gate is not finite", unit / units_.halves()));
}

int64_t plan_backprop_gates(const StageSizes& sizes) {
  Model& model = sizes.model;
  const GateUnits units = gate_units(sizes.fold, model.decoder().specs(), model.decoder().num_layers());
  const std::vector<double> ones = units.ones();
  const int64_t rows = rows_of_pass(sizes.train, sizes.fold.gate_batch, sizes.ranks);
  const Tensor grads({static_cast<int64_t>(ones.size())}, model.decoder().activations(), model.pool().device());
  return plan_widest(rows, sizes.train.sequence_length, model.pool().device(), sizes.threads,
                     [&](const Context& ctx, const PackedBatch& batch) {
                       backprop_gates(ctx, model, batch, gate_loss_of(sizes.fold),
                                      gated_options(sizes.train, units.gates(ones), grads));
                     });
}

}  // namespace tessera
