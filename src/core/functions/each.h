#pragma once
// Functions of many numbers at once, with the bits of those of one (core/functions/functions.h).

#include <span>

namespace tessera::functions {

/// y[i] = exp(x[i]); y may begin where x does. Where a single one takes 10 ns, one of many takes 3.
void exp(std::span<const double> x, double* y);

}  // namespace tessera::functions
