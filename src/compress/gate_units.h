#pragma once
// What the gates of a model are of: its blocks, or their halves (units, as ranking.h counts them).

#include <cstdint>
#include <vector>

#include "compress/fold_config.h"
#include "compress/ranking.h"
#include "model/pass.h"

namespace tessera {

struct GateUnits {
  BlockGates::Of of = BlockGates::Of::blocks;
  int64_t layers = 0;
  std::vector<int64_t> parameters;  // of each unit; of a half with its norm
  std::vector<double> costs;        // the same over those of all units
  std::vector<bool> is_trained;     // gates of protected blocks stay at 1

  int64_t halves() const { return of == BlockGates::Of::sublayers ? 2 : 1; }  // units a block
  size_t count() const { return parameters.size(); }
  /// All gates open.
  std::vector<double> ones() const { return std::vector<double>(count(), 1.0); }
  /// Open gates but for what is removed.
  std::vector<double> without(const Removal&) const;
  BlockGates gates(std::span<const double> values) const { return {of, values}; }
};
/// @param layers  L
GateUnits gate_units(const FoldConfig&, const std::vector<WeightSpec>&, int64_t layers);

ProtectedBlocks protected_blocks(const FoldConfig&);

/// What a share of rho removes, blocks or halves as the units are, the first of the order in front.
/// @throws UserError as remove_halves and blocks_to_remove
Removal removal_of_units(const GateUnits&, std::span<const int64_t> order, double rho, ProtectedBlocks,
                         const KeyPlaces& where);

/// What the share that gates are trained for leaves of the cost of all blocks: 1 - n / L with the n blocks that it
/// removes, so that gates that are open or shut can meet it; of halves 1 - share.
/// @throws UserError as blocks_to_remove
double kept_cost(const GateUnits&, const FoldConfig&, const KeyPlaces& where);

}  // namespace tessera
