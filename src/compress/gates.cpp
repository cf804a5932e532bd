// Stage "gates": trains a gate a block (or half). gates.json holds parameters and gates as they ended, the order in
// which they fell, and what the loss is with soft gates, with hard ones and with the choice of block influence at the
// same number of removed blocks.

#include <algorithm>
#include <cmath>

#include "comm/from_root.h"
#include "comm/stop_together.h"
#include "compress/calibration.h"
#include "compress/gate_backprop.h"
#include "compress/gate_spsa.h"
#include "compress/json_numbers.h"
#include "compress/run_stages.h"
#include "core/error.h"
#include "io/files.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kState = "gates-state.json";
constexpr int64_t kLines = 10;  // of progress

/// The state that a stopped or killed run left, the same on every rank; none where there is none. What is kept step by
/// step has only the start there, and beside it what it reads.
std::optional<GateState> saved_state(const StageInputs& in, const StageReads& reads) {
  const fs::path file = in.folder / kState;
  const bool is_there = !broadcast_text(in.world, in.is_root() && fs::exists(file) ? "there" : "").empty();
  if (!is_there) return std::nullopt;
  SavedGates saved = parse_gates(text_on_all(in, file), file.string());
  from_root(in.world, [&] { return require_same_reads(file, "gates", saved.reads, reads), ""; });
  return std::move(saved.state);
}

std::optional<HalfDone> half_done(const fs::path& folder) {
  const fs::path file = folder / kState;
  if (!fs::exists(file)) return std::nullopt;
  return HalfDone{file, parse_gates(read_text_file(file), file.string()).reads};
}

void train(const StageInputs& in, GateTrainer& trainer, const StageReads& reads) {
  const int64_t steps = in.fold.gate_steps, every = in.checkpoint.every;
  const auto save = [&] {
    if (in.is_root()) write_text_file(in.folder / kState, to_text(trainer.state(), reads));
  };
  if (trainer.state().step > 0) in.say(fmt::format("gates: going on from step {}", trainer.state().step));
  const bool saves = !trainer.keeps_steps();
  if (!saves && trainer.state().step == 0) save();
  while (!trainer.is_done()) {
    const bool is_asked = trainer.take_step();
    const int64_t step = trainer.state().step;
    if (step % std::max<int64_t>(1, steps / kLines) == 0 || step == steps) in.say(trainer.progress());
    if (saves && (is_asked || trainer.is_done() || (every > 0 && step % every == 0))) save();
    leave_together(in.world, is_asked, fmt::format("training gates, after step {}", step));
  }
}

/// What the trained rate removes, by gates and by block influence.
struct Choices {
  Removal by_gates, by_influence;
};
Choices choices(const StageInputs& in, const GateUnits& units, const GateTrainer& trainer, std::span<const double> bi) {
  const ProtectedBlocks kept = protected_blocks(in.fold);
  const double rho = in.fold.trained_remove();
  const std::vector<double> gates = trainer.gates();
  const auto order = order_by_gates({.gate = gates, .theta = trainer.state().theta, .bi = bi, .falls = {}}, kept);
  return {removal_of_units(units, order, rho, kept, in.where_fold),
          remove_blocks(order_by_influence(bi, kept), blocks_to_remove(rho, units.layers, kept, in.where_fold))};
}

/// The reason that holds, and what to turn. A step of Adam moves a gate by about gate_lr, whatever its gradient is, and
/// whether backpropagation or probes have found it.
std::string why_unmet(const FoldConfig& fold) {
  constexpr double kEnough = 2;  // from open to shut, and what the rising bend holds back
  const double reach = static_cast<double>(fold.gate_steps) * fold.gate_lr;
  if (reach >= kEnough) return "; raise fold.gate_weight or fold.gate_steps";
  return fmt::format(
      ": {} steps of fold.gate_lr = {} move a gate by about {:.3g} at most, and {} are needed; raise fold.gate_steps to "
      "{:.0f}, or fold.gate_lr",
      fold.gate_steps, fold.gate_lr, reach, kEnough, std::ceil(kEnough / fold.gate_lr));
}

/// Of the calibration rows.
struct Losses {
  double original, soft, hard, by_influence;
};

void warn(const StageInputs& in, const GateUnits& units, const GateTrainer& trainer, const Losses& losses) {
  const std::vector<double> gates = trainer.gates();
  const double kept = trainer.constraint().kept(gates), target = trainer.constraint().target();
  if (kept > target + 0.01)
    in.say(fmt::format("warning: constraint not met: kept {:.3f}, target {:.3f}{}", kept, target, why_unmet(in.fold)));
  const auto are_soft = std::ranges::count_if(gates, [](double g) { return g >= 0.1 && g <= 0.9; });
  if (are_soft > 0)
    in.say(
        fmt::format("warning: {} of {} gates ended between 0.1 and 0.9: the loss is {:.4f} with them as they are, "
                    "{:.4f} with each open or shut; lower fold.gate_eps_end, or raise fold.gate_steps",
                    are_soft, units.count(), losses.soft, losses.hard));
  if (losses.by_influence < losses.hard)
    in.say(
        fmt::format("warning: on the calibration rows what block influence removes has the lower loss, {:.4f} against "
                    "{:.4f}; train gates for more steps (raise fold.gate_steps), or remove by block influence (set "
                    "fold.selector = \"bi\")",
                    losses.by_influence, losses.hard));
}

Json falls_of(const GateState& state, const GateUnits& units) {
  Json all(Json::Array{});
  for (const auto& [step, unit] : state.fallen) {
    Json fall = Json::object().set("step", step).set("block", unit / units.halves());
    if (units.halves() == 2) fall.set("part", name_of(unit % 2 == 0 ? BlockHalf::attention : BlockHalf::mlp));
    all.push_back(std::move(fall));
  }
  return all;
}

Json curve_of(const GateState& state) {
  Json all(Json::Array{});
  for (const auto& thetas : state.curve) all.push_back(array_of(thetas));
  return all;
}

/// Of all steps and their probes.
int64_t tokens_of_gates(const FoldConfig& fold, const TrainConfig& train) {
  return fold.gate_steps * (is_by_probes(fold) ? kGateProbes : 1) * fold.gate_batch * train.sequence_length;
}

StageOutcome train_gates(const StageInputs& in) {
  const std::vector<double> bi = numbers_of(file_of_stage(in, "probe").at("bi"));
  const GateUnits units = gate_units(in.fold, in.model.decoder().specs(), in.model.decoder().num_layers());
  StageReads reads;
  if (in.is_root()) reads = reads_of_recipe(find_stage("gates"), in);
  const std::unique_ptr<GateTrainer> made = make_gate_trainer(in, units, saved_state(in, reads));
  GateTrainer& trainer = *made;
  train(in, trainer, reads);

  const std::vector<double> gates = trainer.gates(), open = units.ones();
  const Choices chosen = choices(in, units, trainer, bi);
  const auto loss_with = [&](std::span<const double> values) {
    return calibration_loss(in, in.model, units.gates(values));
  };
  const Losses losses{.original = loss_with(open),
                      .soft = loss_with(gates),
                      .hard = loss_with(units.without(chosen.by_gates)),
                      .by_influence = loss_with(units.without(chosen.by_influence))};
  warn(in, units, trainer, losses);
  in.say(fmt::format(
      "gates: losses of the calibration rows: original {:.4f}, with soft gates {:.4f}, hard {:.4f}, by block "
      "influence {:.4f}",
      losses.original, losses.soft, losses.hard, losses.by_influence));
  const GateState& state = trainer.state();
  return {.file = Json::object()
                      .set("format", "tessera fold gates")
                      .set("version", 1)
                      .set("gates", in.fold.gates)
                      .set("steps", state.step)
                      .set("remove", in.fold.trained_remove())
                      .set("theta", array_of(state.theta))
                      .set("gate", array_of(gates))
                      .set("mu", state.mu)
                      .set("kept_cost", trainer.constraint().kept(gates))
                      .set("target_cost", trainer.constraint().target())
                      .set("fallen", falls_of(state, units))
                      .set("losses", Json::object()
                                         .set("original", losses.original)
                                         .set("soft", losses.soft)
                                         .set("hard", losses.hard)
                                         .set("bi", losses.by_influence))
                      .set("theta_every_10_steps", curve_of(state)),
          .tokens = tokens_of_gates(in.fold, in.train)};
}

StageCost gates_cost(const StageSizes& sizes) {
  const GateLoss loss = gate_loss_of(sizes.fold);
  const bool probes = is_by_probes(sizes.fold);
  const int64_t tokens = tokens_of_gates(sizes.fold, sizes.train);
  const double products = probes ? probe_flop(loss) : backprop_flop(loss, sizes.train.checkpoint_activations);
  return {.tokens = tokens,
          .flop = products * static_cast<double>(tokens) * computed_parameters(sizes.model),
          .bytes = std::max(probes ? plan_spsa_gates(sizes) : plan_backprop_gates(sizes),
                            plan_calibration_bytes(sizes, sizes.model))};
}

bool has_gates(const FoldConfig& fold) { return fold.selector == "gates" && fold.trained_remove() > 0; }

}  // namespace

Stage gates_stage() {
  return {.name = "gates",
          .file = "gates.json",
          .keys = {"fold.gates", "fold.gate_estimator", "fold.gate_steps", "fold.gate_batch", "fold.gate_lr",
                   "fold.gate_remove", "fold.gate_eps_end", "fold.gate_weight", "fold.gate_loss", "fold.protect_head",
                   "fold.protect_tail", "fold.calibration_rows", "train.sequence_length", "train.micro_batch",
                   "train.seed"},
          .inputs = {"probe"},
          .run = train_gates,
          .cost = gates_cost,
          .applies = has_gates,
          .half_done = half_done,
          .takes_long = true};
}

}  // namespace tessera
