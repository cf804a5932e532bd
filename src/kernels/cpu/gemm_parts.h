#pragma once
// What the parts of the cpu gemm offer each other. gemm.cpp chooses between CBLAS and our own kernels.

#include "kernels/gemm.h"

namespace tessera::cpu {

/// Whether our own kernels are the faster ones for these shapes (and able to do them).
bool is_skinny(const GemmArgs&);

/// The same contract as gemm, for skinny shapes: no scratch, an element's bits depend on its row of op(A), its column of op(B)
/// and the vector width of the machine alone.
void skinny_gemm(const Context&, const GemmArgs&);

/// to[i] = from[i] for a run of f32, bf16 or f16.
void widen(const void* from, DType, int64_t count, float* to);

}  // namespace tessera::cpu
