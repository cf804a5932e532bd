#pragma once
// Where numbers leave the finite ones: for a message, once it has happened.

#include "data/packed_dataset.h"
#include "kernels/context.h"
#include "model/model.h"

namespace tessera {

/// Runs the blocks one by one. @return the first whose output holds a number that is not finite; the number of blocks
/// when none does
int64_t first_broken_block(const Context&, Model&, const PackedBatch&, BlockGates gates = {});

}  // namespace tessera
