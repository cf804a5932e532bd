#include "compress/gate_units.h"

#include <numeric>

#include "model/fold/plan_shapes.h"

namespace tessera {

std::vector<double> GateUnits::without(const Removal& removal) const {
  std::vector<double> values = ones();
  for (const int64_t block : removal.blocks)
    for (int64_t half = 0; half < halves(); ++half) values[static_cast<size_t>(block * halves() + half)] = 0;
  for (const auto& [block, part] : removal.halves)
    values[static_cast<size_t>(2 * block + (part == BlockHalf::mlp ? 1 : 0))] = 0;
  return values;
}

GateUnits gate_units(const FoldConfig& fold, const std::vector<WeightSpec>& specs, int64_t layers) {
  GateUnits units{.of = fold.has_sublayer_gates() ? BlockGates::Of::sublayers : BlockGates::Of::blocks,
                  .layers = layers,
                  .parameters = {},
                  .costs = {},
                  .is_trained = {}};
  const int64_t halves = units.halves();
  units.parameters.assign(static_cast<size_t>(layers * halves), 0);
  for (const WeightSpec& spec : specs)
    if (spec.layer >= 0)
      units.parameters[static_cast<size_t>(
          spec.layer * halves + (halves == 2 && half_of(spec.part) == BlockHalf::mlp ? 1 : 0))] += spec.shape.count();
  const auto all = static_cast<double>(std::accumulate(units.parameters.begin(), units.parameters.end(), int64_t{0}));
  for (size_t i = 0; i < units.count(); ++i) {
    const int64_t block = static_cast<int64_t>(i) / halves;
    units.costs.push_back(static_cast<double>(units.parameters[i]) / all);
    units.is_trained.push_back(block >= fold.protect_head && block < layers - fold.protect_tail);
  }
  return units;
}

ProtectedBlocks protected_blocks(const FoldConfig& fold) {
  return {.head = fold.protect_head, .tail = fold.protect_tail};
}

Removal removal_of_units(const GateUnits& units, std::span<const int64_t> order, double rho, ProtectedBlocks kept,
                         const KeyPlaces& where) {
  return units.halves() == 2 ? remove_halves(order, rho, units.parameters, kept, where)
                             : remove_blocks(order, blocks_to_remove(rho, units.layers, kept, where));
}

double kept_cost(const GateUnits& units, const FoldConfig& fold, const KeyPlaces& where) {
  const double rho = fold.trained_remove();
  if (units.halves() == 2) return 1 - rho;
  const int64_t removed = blocks_to_remove(rho, units.layers, protected_blocks(fold), where, "gate_remove");
  return 1 - static_cast<double>(removed) / static_cast<double>(units.layers);
}

}  // namespace tessera
