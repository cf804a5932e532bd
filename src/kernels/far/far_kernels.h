#pragma once
// far/: the kernels of the CPU for the far device of tests (core/device/memory.h): what the host cannot read, they find
// far_shift() further on. What a device backend must have been given as views,
// arrays and scratch of its own shows here, without a GPU.

#include "kernels/table.h"

namespace tessera::far {

/// Every op: views, index arrays and scratch are shifted, then the CPU's op is called.
const Kernels& table();

}  // namespace tessera::far
