#pragma once
// Numbers of rank 0 to all ranks, as they lie in memory.

#include "comm/communicator.h"

namespace tessera {

/// A collective: the f32 numbers of rank 0 become every rank's, in messages of at most 64 MB. The view is contiguous.
void send_numbers(Communicator&, const TensorView&);

}  // namespace tessera
