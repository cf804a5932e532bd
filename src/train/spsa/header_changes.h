#pragma once
// What of a recipe is held by the header of an SPSA run's log, told as the recipe says it: the log compares the text of
// the header, in which numbers are bit patterns under names of their own (run_header.h).

#include <string>
#include <vector>

#include "train/spsa/run_header.h"

namespace tessera {

/// A key of the recipe, or in words what several keys decide, with its value in the log's header and in the recipe's.
/// Floats are spelled in the fewest decimals that give the same f32 or f64.
struct HeaderChange {
  std::string key, before, now;
};

/// All that keeps a run from going on with the log; empty where the two headers agree. What follows from another change
/// in the list is left out: the values that a training begins with follow from train.seed. What only one of the two
/// optimizers reads is left out as well.
std::vector<HeaderChange> header_changes(const RunHeader& before, const RunHeader& now);

}  // namespace tessera
