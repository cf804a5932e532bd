#pragma once
// What the host itself does in a pass, between its ops.

#include "kernels/context.h"

namespace tessera {

/// Runs work of the host on numbers that ops of the pass wrote or will read. A counting pass has no numbers, only
/// addresses that are made up: there the work is left out, as the arithmetic of its ops is.
template <class Work> void host_work(const Context& ctx, Work&& work) {
  if (!ctx.scratch.is_counting()) work();
}

}  // namespace tessera
