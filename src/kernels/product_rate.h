#pragma once
// How fast this machine multiplies: what the times of a plan are made of, and what the speed of a training is told by.

#include "kernels/context.h"

namespace tessera {

/// FLOP a second of products C [rows, width] = A [rows, width] · B [width, width]ᵀ in f32, with the context's device,
/// backend and threads: one to warm up, then as many as `seconds` take, at least one. Operands come from the scratch.
double product_rate(const Context&, int64_t rows, int64_t width, double seconds);

/// The machine's limit: product_rate of square matrices, as large as the scratch has room for and a fraction of
/// `seconds` allows, up to 2,048. Takes about that time, and with back ends without fast products a little more. A
/// scratch without room for 1,024 is left alone; then some 15 MB are taken meanwhile.
double limit_rate(const Context&, double seconds);

}  // namespace tessera
