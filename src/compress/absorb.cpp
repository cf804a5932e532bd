#include "compress/absorb.h"

#include "compress/json_numbers.h"
#include "compress/moments.h"
#include "core/device/memory.h"
#include "core/error.h"

namespace tessera {
namespace {

size_t unit_of(int64_t block, BlockHalf half) {
  return static_cast<size_t>(2 * block) + (half == BlockHalf::mlp ? 1 : 0);
}

/// Whether a weight is of what a half adds to the residual stream.
bool makes_output(Part part) {
  return part == Part::o || part == Part::o_bias || part == Part::down || part == Part::down_bias;
}

Tensor scaled(const ConstView& weight, double gate) {
  const OnHost host(weight);
  Tensor product(weight.shape, weight.dtype);
  const auto factor = static_cast<float>(gate);
  for (int64_t i = 0; i < weight.shape.count(); ++i)
    set_element(product, i, factor * static_cast<float>(element(host.view(), i)));
  return product;
}

}  // namespace

std::vector<double> kept_gates(const StageInputs& in, const FoldPlan& plan) {
  std::vector<double> gates = open_halves(plan);
  if (!in.fold.absorb || in.fold.trained_remove() == 0) return gates;
  const std::vector<double> trained = numbers_of(file_of_stage(in, "gates").at("gate"));
  TS_CHECK(trained.size() == gates.size(), "{} gates of {} halves", trained.size(), gates.size());
  for (size_t i = 0; i < gates.size(); ++i)
    if (gates[i] != 0) gates[i] = trained[i];
  return gates;
}

AbsorbedWeights::AbsorbedWeights(Model& original, const FoldPlan& plan, std::span<const double> gates) {
  const std::vector<double> open = open_halves(plan);
  const auto& specs = original.decoder().specs();
  for (size_t i = 0; i < specs.size(); ++i) {
    const WeightSpec& spec = specs[i];
    if (!makes_output(spec.part)) continue;
    const size_t unit = unit_of(spec.layer, half_of(spec.part));
    if (open[unit] == 0 || gates[unit] == 1) continue;
    const ConstView weight = original.decoder().weight(static_cast<int>(i))->direct({&original.pool()});
    TS_CHECK(!weight.empty(), "\"{}\" does not lie in memory as it is read", spec.name);
    types_[spec.part] = spec.type;
    weights_[{spec.layer, spec.part}] = std::make_shared<const Tensor>(scaled(weight, gates[unit]));
  }
}

std::shared_ptr<const Tensor> AbsorbedWeights::of(int64_t block, Part part) const {
  const auto found = weights_.find({block, part});
  return found == weights_.end() ? nullptr : found->second;
}

void AbsorbedWeights::add_starts(const FoldPlan& plan, SlotStarts& starts) const {
  for (const VirtualLayer& layer : virtual_layers(plan))
    for (const auto& [which, weight] : weights_) {
      const auto& [block, part] = which;
      if (block != layer.original) continue;
      const bool is_bias = part == Part::o_bias || part == Part::down_bias;
      if (is_bias)
        starts[fmt::format("fold.layer.{}.{}.bias", layer.number, types_.at(part))] = start_from(weight);
      else if (plan.groups[static_cast<size_t>(layer.group)].parent == block)
        starts[fmt::format("fold.group.{}.{}.weight", layer.group, types_.at(part))] = start_from(weight);
    }
}

}  // namespace tessera
