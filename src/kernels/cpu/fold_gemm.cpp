// y = x Wᵀ where W is expanded a few rows at a time, into a buffer that stays in the second-level cache,
// for the kernels of gemm:
//
//   few rows of x (skinny):  8 rows of W, whole, then their products
//   more (packed):           some columns of y, a slice of k: the rectangle of W, then its strips, then their products
//
// The kernel is the one that gemm would choose for the whole product, and an element's bits depend neither on the
// columns beside it nor on where a block of k ends up: they are those of fold_expand and gemm.

#include <omp.h>

#include <algorithm>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/fold_parts.h"
#include "kernels/cpu/gemm_parts.h"
#include "kernels/cpu/scratch.h"

namespace tessera::cpu {
namespace {

// Rows of W at a time: 16 cost 2 % more at one row of x and 3 % at eight, 32 5 %.
constexpr int64_t kSkinnyRows = 8;
// Of k. A strip or more of whole rows up to that length: rectangles of one block of k, four strips high, are made of
// runs so short that expanding them cost a fifth of the product at 64 rows of x.
constexpr int64_t kSlice = 4 * kBlockK;
static_assert(kSlice * kStrip <= kPanelFloats, "a strip of a slice fits the buffer");

struct FoldGemm {
  const FoldedMatrix& matrix;
  const float* pool;
  ConstView x;
  double beta;
  TensorView y;

  /// W's rectangle, expanded into `buffer`.
  ConstView weights(const FoldRectangle& part, float* buffer) const {
    expand_rectangle(matrix, pool, part, buffer);
    return {buffer, {part.row_end - part.row_begin, part.col_end - part.col_begin}, DType::f32};
  }
};

void skinny(const Context& ctx, const FoldGemm& f) {
  const int64_t rows = f.matrix.layout.rows, cols = f.matrix.layout.cols, buffer = kSkinnyRows * cols;
  const auto scope = ctx.scratch.scope();
  float* buffers = ctx.scratch.allocate({ctx.threads, buffer}, DType::f32).row<float>(0);
  // W has fewer rows than a task would take: expand it once, and let the product share out the rows of x.
  if (rows <= kSkinnyRows)  // then x may have many: they are shared out
    return skinny_gemm(ctx, {.a = f.x,
                             .b = f.weights({0, rows, 0, cols}, buffers),
                             .b_transpose = Transpose::yes,
                             .c = f.y,
                             .beta = f.beta});
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads) if (f.x.rows() * rows * cols > kSmallWork)
  for (int64_t begin = 0; begin < rows; begin += kSkinnyRows) {
    // A task is a slice of y's columns: it expands its own rows of W, in a buffer of its thread.
    const int64_t end = std::min(rows, begin + kSkinnyRows);
    skinny_part({.a = f.x,
                 .b = f.weights({begin, end, 0, cols}, buffers + omp_get_thread_num() * buffer),
                 .b_transpose = Transpose::yes,
                 .c = f.y.slice_cols(begin, end),
                 .beta = f.beta});
  }
}

void packed(const Context& ctx, const FoldGemm& f) {
  const int64_t cols = f.matrix.layout.cols, slice = std::min(cols, kSlice);
  // The packed strips of a slice have to fit one panel: a short slice leaves room for several strips, a full one for
  // one.
  // More than a few strips of W would push each other out of the second-level cache while they are expanded.
  constexpr int64_t kMostExpanded = 4;
  const int64_t columns = std::min(kMostExpanded, kPanelFloats / (slice * kStrip)) * kStrip;
  const auto scope = ctx.scratch.scope();
  float* panels = ctx.scratch.allocate({ctx.threads, 2, kPanelFloats}, DType::f32).row<float>(0);
  const PackedGrid grid(f.y.rows(), f.y.cols(), cols, ctx.threads);
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads) if (grid.tasks() > 1)
  for (int64_t i = 0; i < grid.tasks(); ++i) {
    const PackedTask task = grid.task(i);
    // Two panels a thread: the first for the packed strips, the second for the rectangle of W as it was expanded.
    float* panel = panels + omp_get_thread_num() * 2 * kPanelFloats;
    for (int64_t n = task.n_begin; n < task.n_end; n += columns) {
      const int64_t n_end = std::min(task.n_end, n + columns);
      // Slices of k follow each other in order, and all but the first add to y: the sums of one whole product.
      for (int64_t k = 0; k < cols; k += slice) {
        const int64_t k_end = std::min(cols, k + slice);
        packed_part({.a = f.x.slice_cols(k, k_end),
                     .b = f.weights({n, n_end, k, k_end}, panel + kPanelFloats),
                     .b_transpose = Transpose::yes,
                     .c = f.y.slice_cols(n, n_end),
                     .beta = k == 0 ? f.beta : 1},
                    {task.m_begin, task.m_end, 0, n_end - n}, panel);
      }
    }
  }
}

}  // namespace

/// The greater of what the two ways take: the choice depends on the rows of x, which a plan does not know.
int64_t fold_gemm_scratch_bytes(const FoldedMatrix& matrix, int threads) {
  return std::max(threads * kSkinnyRows * matrix.layout.cols * size_of(DType::f32), 2 * packed_scratch_bytes(threads));
}

void fold_gemm(const Context& ctx, const FoldedMatrix& matrix, ConstView pool, ConstView x, double beta, TensorView y) {
  const GemmArgs whole{.a = x,
                       .b = ConstView(nullptr, {matrix.layout.rows, matrix.layout.cols}, DType::f32),
                       .b_transpose = Transpose::yes,
                       .c = y,
                       .beta = beta};
  const FoldGemm f{matrix, pool.row<float>(0), x, beta, y};
  // Without columns there is nothing to expand; gemm scales y.
  if (matrix.layout.cols == 0) return cpu::gemm(ctx, whole);
  if (is_skinny(whole)) return skinny(ctx, f);
  packed(ctx, f);
}

}  // namespace tessera::cpu
