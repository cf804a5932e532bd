#pragma once
// What the parts of the cpu gemm offer each other. Both kernels keep gemm's contract; gemm.cpp chooses.

#include "kernels/gemm.h"

namespace tessera::cpu {

/// K of op(A) [M, K].
inline int64_t inner_size(const GemmArgs& g) { return g.a.shape[g.a_transpose == Transpose::yes ? 0 : 1]; }

/// Below this many multiply-adds starting the threads (some microseconds) costs more than it saves.
constexpr int64_t kSmallWork = 64 * 1024;

/// B is packed into strips first: for anything large. Takes packed_scratch_bytes.
void packed_gemm(const Context&, const GemmArgs&);
int64_t packed_scratch_bytes(int threads);

/// B is read where it lies, no scratch: for a small M, N or K.
/// Either A is stored as it is and B transposed, or B is stored as it is in f32.
void skinny_gemm(const Context&, const GemmArgs&);

}  // namespace tessera::cpu
