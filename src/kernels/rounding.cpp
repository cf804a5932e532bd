#include "kernels/rounding.h"

#include <atomic>

#include "core/error.h"
#include "kernels/votes.h"

namespace tessera {

void require_exact_rounding(const Context& ctx) {
  std::atomic<bool> is_exact = true;
#pragma omp parallel num_threads(ctx.threads)
  if (!has_exact_rounding()) is_exact = false;
  if (!is_exact)
    throw UserError("", "a thread of this process flushes denormals to zero, or does not round to nearest",
                    "a library that was loaded has set this, such as one built with -ffast-math (LD_PRELOAD, an MPI or "
                    "numerical library): leave it out");
}

}  // namespace tessera
