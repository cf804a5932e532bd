#pragma once
// How fast this machine multiplies: what the times of a plan are made of.

#include "kernels/compute.h"

namespace tessera {

/// FLOP a second of matrix products, measured for half a second with the job's device, backend and threads.
double product_rate(const Compute::Choice&);

}  // namespace tessera
