#pragma once
// Numbers of one rank to all ranks, as they lie in memory.

#include "comm/communicator.h"

namespace tessera {

/// A collective: the numbers of rank `root` become every rank's, in messages of at most 64 MB. The view is contiguous,
/// of the same shape and type on all of them.
void send_numbers(Communicator&, const TensorView&, int root = 0);

}  // namespace tessera
