#pragma once
// How fast this machine reads its memory: what passes of few rows are limited by.

#include "kernels/context.h"

namespace tessera {

/// Bytes a second that the threads of the context read together of 128 MB of the host's memory, which they hold
/// meanwhile: once to warm up, then as often as `seconds` allow, at least once. @throws std::bad_alloc
double read_rate(const Context&, double seconds);

}  // namespace tessera
