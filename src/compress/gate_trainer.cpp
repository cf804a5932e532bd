#include "compress/gate_trainer.h"

#include <algorithm>

#include "compress/broken_block.h"
#include "compress/gate_backprop.h"
#include "compress/gate_loss.h"
#include "compress/gate_spsa.h"
#include "core/error.h"

namespace tessera {
namespace {

constexpr int64_t kAscentEvery = 10;

}  // namespace

GateTrainer::GateTrainer(const StageInputs& in, const GateUnits& units, GateState state)
    : in_(in),
      units_(units),
      constraint_(units.costs, kept_cost(units, in.fold, in.where_fold), in.fold.gate_weight),
      state_(std::move(state)) {
  TS_CHECK(state_.theta.size() == units.count(), "{} gates of {}", state_.theta.size(), units.count());
}

double GateTrainer::eps() const { return gate_eps(state_.step + 1, in_.fold.gate_steps, in_.fold.gate_eps_end); }
double GateTrainer::bend() const { return gate_bend(state_.step + 1, in_.fold.gate_steps); }

std::vector<double> GateTrainer::gates_at(std::span<const double> theta) const {
  std::vector<double> values = units_.ones();
  for (size_t i = 0; i < values.size(); ++i)
    if (units_.is_trained[i]) values[i] = gate_value(theta[i], eps());
  return values;
}

void GateTrainer::end_step(double loss, std::span<const double> before) {
  const double counted = constraint_.counted(before, bend());
  loss_ = loss;
  kept_ = constraint_.kept(before);
  ++state_.step;
  note_falls(before);
  if (state_.step % kAscentEvery != 0) return;
  state_.mu = constraint_.ascended(counted, state_.mu);
  state_.curve.push_back(state_.theta);
}

void GateTrainer::note_falls(std::span<const double> before) {
  const std::vector<double> now = gates();
  for (size_t i = 0; i < now.size(); ++i)
    if (before[i] >= 0.5 && now[i] < 0.5) state_.fallen.push_back({state_.step, static_cast<int64_t>(i)});
}

int64_t GateTrainer::broken_block(const Passes& for_each_batch, std::span<const double> gates) const {
  std::vector<double> last = {-static_cast<double>(units_.layers)};  // the maximum of what is negated: the first block
  for_each_batch([&](const PackedBatch& batch) {
    last[0] =
        std::max(last[0], -static_cast<double>(first_broken_block(in_.ctx, in_.model, batch, units_.gates(gates))));
  });
  in_.world.all_reduce_max(last);
  return static_cast<int64_t>(-last[0]);
}

std::string GateTrainer::name_broken(int64_t block) const {
  return block == units_.layers ? "the loss behind the last block is not finite"
                                : fmt::format("block {} gives a number that is not finite", block);
}

void GateTrainer::refuse_step(std::string what) const {
  const std::string base = in_.model.broken_base_weight();
  if (!base.empty()) what += ": " + base;
  throw UserError(fmt::format("step {} of the gates", state_.step + 1), what,
                  base.empty() ? "the step was not taken; lower fold.gate_lr" : "the base model is damaged");
}

std::string GateTrainer::progress() const {
  const char* lowered = gate_loss_of(in_.fold) == GateLoss::divergence ? "divergence" : "loss";
  return fmt::format("gates: step {} of {}, {} {:.4f}, kept cost {:.3f} of at most {:.3f}, mu {:.3f}", state_.step,
                     in_.fold.gate_steps, lowered, loss_, kept_, constraint_.target(), state_.mu);
}

std::unique_ptr<GateTrainer> make_gate_trainer(const StageInputs& in, const GateUnits& units,
                                               std::optional<GateState> state) {
  if (is_by_probes(in.fold)) return std::make_unique<SpsaGates>(in, units, state.has_value());
  return std::make_unique<BackpropGates>(in, units, state ? std::move(*state) : GateState::open(units.count()));
}

}  // namespace tessera
