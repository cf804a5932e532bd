// Which kernel multiplies which shape. There is no BLAS here: on the shapes of training our tiles are faster than
// OpenBLAS's, they widen bf16 and f16 while packing, and an element's bits depend on nothing but its row and its
// column, which no BLAS promises. One core, AVX-512, GFLOP/s, ours against OpenBLAS 0.3.21 (gemm_bench):
// 512 x 576 x 576: 170 : 155, 512 x 576 x 1536: 163 : 149, 512 x 8 x 576: 94 : 60, 8 x 576 x 512: 160 : 56,
// 2048 x 2048 x 2048: 150 : 152.

#include "kernels/gemm.h"

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gemm_parts.h"
#include "kernels/cpu/scratch.h"

namespace tessera::cpu {
namespace {

// op(B) = Bᵀ, K = 576, GFLOP/s. By columns (512 rows, one core): 8 skinny 108, packed 41; 16 packed 200. By rows,
// weights from memory (decode_bench 2): 12 skinny 165 in f32 and 218 in bf16; 16 packed 150 and 138.
constexpr int64_t kFewRows = 12, kFewColumns = 8;
static_assert(kFewRows <= kMostThin && kFewColumns <= kMostThin);
// op(B) = B, K = 512: by rows 16: 162 : 105, 64: 166 : 157.
// By K (M = 512, N = 576) the two are alike, and skinny packs nothing.
constexpr int64_t kFewRowsOfSum = 64;

/// C = beta · C: what is left when there is nothing to sum.
void scale_only(const GemmArgs& g) {
  for (int64_t i = 0; i < g.c.rows(); ++i) {
    float* row = g.c.row<float>(i);
    for (int64_t j = 0; j < g.c.cols(); ++j) row[j] = g.beta == 0 ? 0 : static_cast<float>(g.beta) * row[j];
  }
}

}  // namespace

bool is_skinny(const GemmArgs& g) {
  // Blocks of a wide operand's rows are turned where they lie, so that A may not be stored turned. The kernel that adds
  // rows of B broadcasts elements of A, stored either way, but reads vectors of B as f32.
  if (g.b_transpose == Transpose::yes)
    return g.a_transpose == Transpose::no &&
           (g.c.rows() <= kFewRows || (g.c.cols() <= kFewColumns && g.b.dtype == DType::f32));
  return g.b.dtype == DType::f32 && (inner_size(g) <= kShortSum || g.c.rows() <= kFewRowsOfSum);
}

void gemm(const Context& ctx, const GemmArgs& args) {
  if (inner_size(args) == 0 || args.alpha == 0) return scale_only(args);
  if (is_skinny(args)) return skinny_gemm(ctx, args);
  packed_gemm(ctx, args);
}

int64_t gemm_scratch_bytes(const GemmArgs&, int threads) { return packed_scratch_bytes(threads); }

}  // namespace tessera::cpu
