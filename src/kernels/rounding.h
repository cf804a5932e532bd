#pragma once
// The rounding that all arithmetic counts on.

#include "kernels/context.h"

namespace tessera {

/// Asks each of the context's threads whether it rounds to nearest and keeps denormals: a library that is loaded later
/// (built with -ffast-math) may have switched that off, and last bits would differ from then on. Some microseconds:
/// once a step.
/// @throws UserError
void require_exact_rounding(const Context&);

}  // namespace tessera
