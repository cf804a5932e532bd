#pragma once
// The second pass of attention over pages: how much each entry is attended to.

#include "kernels/context.h"
#include "kernels/paged_attention.h"

namespace tessera::cpu {

/// Assigns args.mass. @param lse  [rows, heads] over all entries that a row sees
void add_up_mass(const Context&, const PagedAttentionArgs& args, const TensorView& lse);
int64_t mass_scratch_bytes(const PagedAttentionArgs&, int threads);

}  // namespace tessera::cpu
