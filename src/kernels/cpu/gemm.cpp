// Which kernel multiplies which shape. There is no BLAS here: on the shapes of training our tiles are faster than
// OpenBLAS's, they widen bf16 and f16 while packing, and an element's bits depend on nothing but its row and its
// column, which no BLAS promises (docs/benchmarks.md compares).

#include "kernels/gemm.h"

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gemm_parts.h"
#include "kernels/cpu/scratch.h"

namespace tessera::cpu {
namespace {

// op(B) = Bᵀ, K = 576. By columns (512 rows, one core, GFLOP/s): 8 skinny 145, packed 41; 16 packed 211. By rows,
// weights from memory (one core): 16 rows in two halves of 8 gain a tenth over packing in bf16 and lose a fifth in f16.
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
