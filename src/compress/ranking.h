#pragma once
// Which blocks of a trained model are removed: how many, and in which order.
//
// A unit is what a gate closes: a block, or half of one (attention: 2 l, MLP: 2 l + 1). An order lists units, the one
// to remove first in front. Blocks at both ends are protected and stand in no order.

#include <cstdint>
#include <span>
#include <vector>

#include "core/key_places.h"
#include "model/fold/plan.h"

namespace tessera {

/// Blocks that are never removed, counted from the first and from the last one.
struct ProtectedBlocks {
  int64_t head = 1, tail = 1;
  friend bool operator==(const ProtectedBlocks&, const ProtectedBlocks&) = default;
};

/// n = ⌊rho · layers + 1/2⌋, exactly of the decimal that the recipe spells: 0.35 of 10 blocks are 4.
/// @param where  place of the recipe's [fold]
/// @param key    of [fold] that rho is
/// @throws UserError when fewer blocks than the protected ones and one more would be left
int64_t blocks_to_remove(double rho, int64_t layers, ProtectedBlocks, const KeyPlaces& where,
                         const std::string& key = "remove");

/// Blocks in ascending order of block influence, 1 - mean cos(x_l, x_{l+1}); ties: the lower index first.
/// @param bi  [layers]
std::vector<int64_t> order_by_influence(std::span<const double> bi, ProtectedBlocks);

/// `count` blocks drawn without replacement: draw_distinct(hash_key(seed, 0x464F4C44)) of the unprotected ones.
std::vector<int64_t> random_order(int64_t layers, int64_t count, ProtectedBlocks, uint64_t seed);

/// The run of m consecutive unprotected blocks, s .. s+m-1, that changes the residual stream least:
/// s = argmax cos(x_s, x_{s+m}), ties to the smallest s.
/// @param similarity  [layers + 1, layers + 1] mean cosines between the states in front of the blocks, and the last one
/// @return s
int64_t most_similar_run(std::span<const double> similarity, int64_t layers, int64_t m, ProtectedBlocks);

/// What the training of gates ended with, by unit.
struct GateOutcome {
  std::span<const double> gate, theta;  // [layers], or [2 layers] of halves
  std::span<const double> bi;           // [layers]
  std::span<const int64_t> falls;       // units in the order in which their gates fell below one half
};

/// Units by final gate, then theta, then block influence, the lowest first; ties: the lower unit first.
std::vector<int64_t> order_by_gates(const GateOutcome&, ProtectedBlocks);

/// The order for rates below the one that the gates were trained for: the first `trained` units of `order`, which that
/// rate removes, stand by the step at which their gates fell (a gate that rose again counts by its last fall), those
/// that never fell behind them; the rest as in `order`.
std::vector<int64_t> order_by_falls(std::vector<int64_t> order, int64_t trained, std::span<const int64_t> falls);

/// What is removed: blocks, and halves of others. Both ascending.
struct Removal {
  std::vector<int64_t> blocks;
  std::vector<RemovedHalf> halves;
};

/// The first `count` blocks of an order.
Removal remove_blocks(std::span<const int64_t> order, int64_t count);

/// The first halves of the order, so many that their parameters come nearest to rho of those of all halves; of two
/// numbers that are as near the larger. A block that lost both halves is removed as a block.
/// @param parameters  [2 layers] of each half with its norm
/// @throws UserError when the order ends before, or too few blocks are left
Removal remove_halves(std::span<const int64_t> order, double rho, std::span<const int64_t> parameters, ProtectedBlocks,
                      const KeyPlaces& where);

}  // namespace tessera
