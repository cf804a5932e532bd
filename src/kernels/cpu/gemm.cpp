// C = alpha · op(A) · op(B) + beta · C, through CBLAS in one thread per block of columns of C.
//
// C is cut into blocks of columns whose width follows from N alone, so that the calls, and with them the bits, are the same for
// any number of threads; whichever thread is free takes the next block. A block of B in bf16 or f16 is first widened into that
// thread's tile of scratch, kTileK rows of the inner dimension at a time. Rows are never split: a BLAS changes a row's bits
// with the number of rows.

#include "kernels/gemm.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gemm_parts.h"
#include "kernels/cpu/scratch.h"

// Of these two only the linked library's is there.
extern "C" __attribute__((weak)) void openblas_set_num_threads(int);
extern "C" __attribute__((weak)) void bli_thread_set_num_threads(int64_t);

namespace tessera::cpu {
namespace {

// Each call packs op(A) again. OpenBLAS 0.3.21 on one core, M = 512, K = 576, in GFLOP/s by width: 48: 123, 96: 139, 144: 146,
// 192: 151, 288: 154, 576: 155. Narrower blocks share out better.
constexpr int64_t kTypicalWidth = 192, kLargestWidth = 288;
// A tile stays in the second-level cache: 288 columns · 1024 rows · 4 bytes = 1.2 MB.
constexpr int64_t kTileK = 1024;
// Below this many multiply-adds starting the threads costs more than it saves.
constexpr int64_t kSmallWork = 64 * 1024;

/// Columns of a block: an even number of blocks of about kTypicalWidth (at least four from 384 columns on), in whole vectors.
int64_t block_width(int64_t n) {
  if (n < 128) return n;
  const int64_t least = n < 384 ? 2 : 4;
  const int64_t blocks = std::max(least, (n + kTypicalWidth) / (2 * kTypicalWidth) * 2);
  return std::min(kLargestWidth, ((n + blocks - 1) / blocks + 15) / 16 * 16);
}

int64_t inner_size(const GemmArgs& args) { return args.a.shape[args.a_transpose == Transpose::yes ? 0 : 1]; }

bool needs_widening(const GemmArgs& args) { return args.b.dtype != DType::f32; }

/// Elements of one thread's tile.
int64_t tile_count(const GemmArgs& args) { return block_width(args.c.cols()) * std::min(inner_size(args), kTileK); }

/// Copies op(B)[k_begin : k_end, n_begin : n_end] as it is stored, widened; its rows are then dense.
void widen_tile(const GemmArgs& args, int64_t k_begin, int64_t k_end, int64_t n_begin, int64_t n_end, float* tile) {
  const bool transposed = args.b_transpose == Transpose::yes;
  const int64_t row_begin = transposed ? n_begin : k_begin, row_end = transposed ? n_end : k_end;
  const int64_t col_begin = transposed ? k_begin : n_begin, cols = (transposed ? k_end : n_end) - col_begin;
  const auto* bytes = static_cast<const std::byte*>(args.b.data);
  for (int64_t row = row_begin; row < row_end; ++row, tile += cols)
    widen(bytes + (row * args.b.row_stride() + col_begin) * size_of(args.b.dtype), args.b.dtype, cols, tile);
}

struct Operand {
  const float* data;
  int64_t row_stride;
};

/// One BLAS call: columns [n_begin, n_end) of C, rows [k_begin, k_end) of op(B) given by `b`.
void multiply(const GemmArgs& args, int64_t k_begin, int64_t k_end, int64_t n_begin, int64_t n_end, Operand b, float beta) {
  const bool a_transposed = args.a_transpose == Transpose::yes;
  const float* a = args.a.row<float>(0) + k_begin * (a_transposed ? args.a.row_stride() : 1);
  const auto leading = [](int64_t stride) { return static_cast<int>(std::max<int64_t>(stride, 1)); };
  cblas_sgemm(CblasRowMajor, a_transposed ? CblasTrans : CblasNoTrans, args.b_transpose == Transpose::yes ? CblasTrans : CblasNoTrans,
              static_cast<int>(args.c.rows()), static_cast<int>(n_end - n_begin), static_cast<int>(k_end - k_begin),
              static_cast<float>(args.alpha), a, leading(args.a.row_stride()), b.data, leading(b.row_stride), beta,
              args.c.row<float>(0) + n_begin, leading(args.c.row_stride()));
}

void multiply_block(const GemmArgs& args, int64_t n_begin, int64_t n_end, float* tile) {
  const bool transposed = args.b_transpose == Transpose::yes;
  const int64_t k = inner_size(args);
  if (!needs_widening(args)) {
    const float* b = args.b.row<float>(0) + n_begin * (transposed ? args.b.row_stride() : 1);
    return multiply(args, 0, k, n_begin, n_end, {b, args.b.row_stride()}, static_cast<float>(args.beta));
  }
  for (int64_t k_begin = 0; k_begin < k; k_begin += kTileK) {
    const int64_t k_end = std::min(k, k_begin + kTileK);
    widen_tile(args, k_begin, k_end, n_begin, n_end, tile);
    multiply(args, k_begin, k_end, n_begin, n_end, {tile, transposed ? k_end - k_begin : n_end - n_begin},
             k_begin == 0 ? static_cast<float>(args.beta) : 1.0f);
  }
}

/// C = beta · C: what is left when there is nothing to sum.
void scale_only(const GemmArgs& args) {
  for (int64_t i = 0; i < args.c.rows(); ++i) {
    float* row = args.c.row<float>(i);
    for (int64_t j = 0; j < args.c.cols(); ++j) row[j] = args.beta == 0 ? 0 : static_cast<float>(args.beta) * row[j];
  }
}

/// The threads are ours: the library's own would compete with them.
void keep_blas_single_threaded() {
  static const bool kDone = [] {
    if (openblas_set_num_threads) openblas_set_num_threads(1);
    if (bli_thread_set_num_threads) bli_thread_set_num_threads(1);
    return true;
  }();
  static_cast<void>(kDone);
}

}  // namespace

void gemm(const Context& ctx, const GemmArgs& args) {
  const int64_t n = args.c.cols(), k = inner_size(args), width = block_width(n);
  if (k == 0 || args.alpha == 0) return scale_only(args);
  if (is_skinny(args)) return skinny_gemm(ctx, args);
  keep_blas_single_threaded();
  const auto scope = ctx.scratch.scope();
  float* tiles = nullptr;
  if (needs_widening(args)) tiles = ctx.scratch.allocate({ctx.threads, tile_count(args)}, DType::f32).row<float>(0);
  const bool parallel = n > width && args.c.rows() * n * k > kSmallWork;
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads) if (parallel)
  for (int64_t begin = 0; begin < n; begin += width)
    multiply_block(args, begin, std::min(n, begin + width), tiles ? tiles + omp_get_thread_num() * tile_count(args) : nullptr);
}

int64_t gemm_scratch_bytes(const GemmArgs& args, int threads) {
  if (!needs_widening(args) || is_skinny(args)) return 0;
  return (threads * tile_count(args) * size_of(DType::f32) + 63) / 64 * 64;
}

}  // namespace tessera::cpu
