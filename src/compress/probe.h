#pragma once
// How alike the states of the residual stream are in front of every block and behind the last: what a block changes.

#include <vector>

#include "compress/stages.h"

namespace tessera {

/// Sums of cosines between all pairs of states x_0 .. x_L of one batch, over the tokens of its documents:
/// [(L + 1) · (L + 1)], symmetric. x_L is taken in front of the final norm.
/// Nothing of a counting pass.
std::vector<double> cosine_sums(const Context&, Model&, const PackedBatch&);

struct Probe {
  std::vector<double> similarity;  // [L + 1, L + 1] mean cosines
  std::vector<double> influence;   // [L] of the blocks: 1 - cos(x_l, x_{l+1})
  int64_t tokens = 0;
};
/// Of the calibration rows. A pass takes one row, and rows are summed in their order, so that the result has the same
/// bits for any number of ranks.
/// @throws Stopped on every rank when a stop was asked for between two rows
Probe probe_blocks(const StageInputs&);

}  // namespace tessera
