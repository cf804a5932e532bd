// The gradient of attention with sums in any order: query heads that share a key head add to the same dk and dv, panel
// by panel, scale and all, with no copy for each head. Causal, without windows, every key of a document its query's.
// The rest is as in kernels/cpu/attention.cpp. Included once per instruction set by free_order_bench.cpp.

#if defined(TESSERA_BENCH_FREE_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_BENCH_FREE_ATTENTION_INL_H_
#undef TESSERA_BENCH_FREE_ATTENTION_INL_H_
#else
#define TESSERA_BENCH_FREE_ATTENTION_INL_H_
#endif

#include "kernels/attention.h"
#include "kernels/cpu/tile-inl.h"

#ifndef TESSERA_BENCH_FREE_ATTENTION_SHARED_
#define TESSERA_BENCH_FREE_ATTENTION_SHARED_
namespace tessera::free_order {

constexpr int64_t kMaxPanel = 48, kKeyBlock = 128;  // as in the kernel
inline int64_t attention_floats(int64_t head_dim) { return (3 * head_dim + 2 * kKeyBlock + 2) * kMaxPanel; }

/// dk and dv of one head: key j of the document stands at j * stride.
struct KeySums {
  float *dk, *dv;
  int64_t dk_stride, dv_stride;
};

}  // namespace tessera::free_order
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::free_order::HWY_NAMESPACE {

using namespace tessera::cpu::HWY_NAMESPACE;  // NOLINT: the lanes and tiles that both are built of

constexpr int64_t kPanel = kTileCols * kLanes;

/// to [cols, rows] = scale · fromᵀ; the rows of `to` are filled with zeros up to `padded`.
HWY_INLINE void turned(const float* from, int64_t from_stride, int64_t rows, int64_t cols, float scale, float* to,
                       int64_t to_stride, int64_t padded) {
  for (int64_t r = 0; r < padded; r += kLanes)
    for (int64_t c = 0; c < cols; c += kLanes)
      transpose_block(from + r * from_stride + c, from_stride, rows - r, cols - c, scale, to + c * to_stride + r,
                      to_stride, std::min<int64_t>(kLanes, padded - r));
}

/// Scores of keys [key, key + rows) become probabilities p, their gradients p (g − delta). Query i of the panel stands
/// at key first + i.
HWY_INLINE void differentiate(int64_t key, int64_t rows, int64_t first, int64_t width, const float* lse,
                              const float* delta, float* scores, float* gradients) {
  for (int64_t v = 0; v < width; v += kLanes) {
    const Vector l = hn::Load(kFloats, lse + v), d = hn::Load(kFloats, delta + v);
    const Vector lane = hn::Iota(kFloats, static_cast<float>(v));
    for (int64_t j = 0; j < rows; ++j) {
      float *s = scores + j * width + v, *g = gradients + j * width + v;
      Vector e = Exp(kFloats, hn::Sub(hn::Load(kFloats, s), l));
      if (key + j > first)
        e = hn::IfThenElseZero(hn::Ge(lane, hn::Set(kFloats, static_cast<float>(key + j - first))), e);
      hn::Store(e, kFloats, s);
      hn::Store(hn::Mul(e, hn::Sub(hn::Load(kFloats, g), d)), kFloats, g);
    }
  }
}

HWY_INLINE float dot_of(const float* a, const float* b, int64_t n) {
  Vector sum = hn::Zero(kFloats);
  for (int64_t i = 0; i < n; i += kLanes) sum = fused(load_some(a + i, n - i), load_some(b + i, n - i), sum);
  return hn::GetLane(hn::SumOfLanes(kFloats, sum));
}

void attention_panel(const AttentionBackwardArgs& args, const AttentionSegment& s, int64_t head, int64_t begin,
                     KeySums into, float* scratch) {
  const int64_t dim = args.head_dim, kv_head = head / (args.heads / args.kv_heads), row = s.q_begin + begin;
  const int64_t queries = std::min(kPanel, s.q_end - row), width = (queries + kLanes - 1) / kLanes * kLanes;
  float *qt = scratch, *dout_t = qt + dim * width, *dq_t = dout_t + dim * width, *scores = dq_t + dim * width;
  float *dp = scores + kKeyBlock * width, *lse = dp + kKeyBlock * width, *delta = lse + width;
  const float *q = args.q.row<float>(row) + head * dim, *dout = args.dout.row<float>(row) + head * dim;
  const float* k = args.k.row<float>(s.k_begin) + kv_head * dim;
  const float* v = args.v.row<float>(s.k_begin) + kv_head * dim;
  const int64_t q_stride = args.q.row_stride(), o_stride = args.dout.row_stride();
  const int64_t k_stride = args.k.row_stride(), v_stride = args.v.row_stride(), keys = begin + queries;
  const float scale = static_cast<float>(args.scale);
  turned(q, q_stride, queries, dim, scale, qt, width, width);
  turned(dout, o_stride, queries, dim, 1, dout_t, width, width);
  for (int64_t i = 0; i < width; ++i) {
    const bool inside = i < queries;
    lse[i] = inside ? args.lse.row<float>(row + i)[head] : 0;
    delta[i] = inside ? dot_of(dout + i * o_stride, args.out.row<float>(row + i) + head * dim, dim) : 0;
  }
  for (int64_t j = 0; j < keys; j += kKeyBlock) {
    const int64_t rows = std::min(kKeyBlock, keys - j);
    product({rows, width, dim, k + j * k_stride, k_stride, 1, qt, width, scores, width, 1, 0});
    product({rows, width, dim, v + j * v_stride, v_stride, 1, dout_t, width, dp, width, 1, 0});
    differentiate(j, rows, begin, width, lse, delta, scores, dp);
    float *dv = into.dv + j * into.dv_stride, *dk = into.dk + j * into.dk_stride;
    product({rows, dim, queries, scores, width, 1, dout, o_stride, dv, into.dv_stride, 1, 1});
    product({rows, dim, queries, dp, width, 1, q, q_stride, dk, into.dk_stride, scale, 1});
    product({dim, width, rows, k + j * k_stride, 1, k_stride, dp, width, dq_t, width, 1, j > 0 ? 1.0f : 0.0f});
  }
  turned(dq_t, width, dim, queries, scale, args.dq.row<float>(row) + head * dim, args.dq.row_stride(), dim);
}

/// Heads [head_begin, head_end), which share one key head, into one dk and dv.
void attention_task(const AttentionBackwardArgs& args, const AttentionSegment& s, int64_t head_begin, int64_t head_end,
                    KeySums into, float* scratch) {
  for (int64_t j = 0; j < s.k_end - s.k_begin; ++j) {
    std::fill_n(into.dk + j * into.dk_stride, args.head_dim, 0.0f);
    std::fill_n(into.dv + j * into.dv_stride, args.head_dim, 0.0f);
  }
  for (int64_t head = head_begin; head < head_end; ++head)
    for (int64_t begin = 0; begin < s.q_end - s.q_begin; begin += kPanel)
      attention_panel(args, s, head, begin, into, scratch);
}

}  // namespace tessera::free_order::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
