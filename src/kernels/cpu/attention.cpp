// Attention on the CPU: a query never leaves its SIMD lane.
//
// The queries of one head are taken in panels of up to three vectors, transposed once:
//
//        panel (queries →)             for each block of keys:
//   qT  [head_dim × panel]               S  = K qT      [keys × panel]   an element of K times a vector of queries
//   outT[head_dim × panel]               P  = exp(S − max)               softmax runs down the columns: no shuffles
//                                        outT += Vᵀ P                    again elements of V times vectors of P
//
// so forward and backward are calls of one register tile (tile-inl.h), K and V are read as they lie, and the only
// buffers are [kKeyBlock × panel] and [head_dim × panel] for each thread. The softmax is online: outT and the sum are
// rescaled when a block of keys raises the maximum (Dao et al. 2022, arXiv:2205.14135).
// Blocks of keys that no query of the panel sees are not visited: those behind its last query, and with a window those
// in front of what its first query sees. Blocks begin at multiples of kKeyBlock either way, so that a query's sums are
// formed in the same order whichever panel it is in.
//
// A query's numbers depend on its own segment alone: keys that it does not see add exact zeros. Backward, each query
// head of a segment sums dk and dv in chains over its queries, which go on from panel to panel. Heads that share keys
// sum into copies of their own, which are added in ascending head order; the scale of the scores is applied to the
// result. A task owns all query heads of a key-value head or, where that leaves too few tasks, one of them: the sums
// are the same.

#include "kernels/attention.h"

#include <omp.h>

#include <algorithm>

#include "core/functions/functions.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/tile-inl.h"

#ifndef TESSERA_KERNELS_CPU_ATTENTION_SHARED_
#define TESSERA_KERNELS_CPU_ATTENTION_SHARED_
namespace tessera::cpu {

constexpr int64_t kMaxPanel = 48;   // 3 vectors of 16 lanes
constexpr int64_t kKeyBlock = 128;  // S [128 × 48] f32 is 24 KB: it stays in the first-level cache with its block of V

/// Where a backward task sums dk and dv: key j of the segment and head h stand at data[j · stride + h · step].
struct KeyGradients {
  float *dk, *dv;
  int64_t dk_stride, dv_stride;
};

/// Floats of one thread's buffers, in rows of a panel of the greatest width. Forward: qT, outT, a block of scores, and
/// per query the maximum and the sum. Backward: qT, doutT, dqT, the scores, their gradients, lse and delta.
inline int64_t forward_floats(int64_t head_dim) { return (2 * head_dim + kKeyBlock + 3) * kMaxPanel; }
inline int64_t backward_floats(int64_t head_dim) { return (3 * head_dim + 2 * kKeyBlock + 2) * kMaxPanel; }

}  // namespace tessera::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

constexpr int64_t kPanel = kTileCols * kLanes;
static_assert(kPanel <= kMaxPanel);

/// to [cols, rows] = scale · fromᵀ; the rows of `to` are filled with zeros up to `padded`.
HWY_INLINE void transpose(const float* from, int64_t from_stride, int64_t rows, int64_t cols, float scale, float* to,
                          int64_t to_stride, int64_t padded) {
  for (int64_t r = 0; r < padded; r += kLanes)
    for (int64_t c = 0; c < cols; c += kLanes)
      transpose_block(from + r * from_stride + c, from_stride, rows - r, cols - c, scale, to + c * to_stride + r,
                      to_stride, std::min<int64_t>(kLanes, padded - r));
}

/// A panel of queries of one head: which it is and which keys it sees.
struct Panel {
  int64_t queries;    // of the panel
  int64_t width;      // queries rounded up to whole vectors
  int64_t first_all;  // no query is before the keys below this one; query i stands at key first_all − 1 + i
  int64_t keys;       // keys up to the last query
  int64_t window;     // keys that a query sees, its own the last of them
  int64_t begin;      // the first key of the blocks that are visited
  int64_t near_all;   // keys from this one on are in every query's window
  int vectors() const { return static_cast<int>(width / kLanes); }
};

/// @param window  as in AttentionArgs: 0 for all keys
HWY_INLINE Panel panel_at(const AttentionSegment& s, int64_t begin, int64_t window) {
  const int64_t queries = s.q_end - s.q_begin, keys = s.k_end - s.k_begin;
  Panel p;
  p.queries = std::min(kPanel, queries - begin);
  p.width = (p.queries + kLanes - 1) / kLanes * kLanes;
  // The mask is aligned at the end: the last query of the segment sees all keys, and so the first query of this panel,
  // number `begin`, sees those up to keys − queries + begin.
  p.first_all = keys - queries + begin + 1;
  p.keys = p.first_all - 1 + p.queries;
  p.window = window > 0 ? std::min(window, keys) : keys;
  p.begin = std::max<int64_t>(0, p.first_all - p.window) / kKeyBlock * kKeyBlock;
  p.near_all = std::max<int64_t>(0, p.keys - p.window);
  return p;
}

/// The lanes of vector `v` whose query sees key `key`.
HWY_INLINE auto seen(const Panel& p, int64_t key, int v) {
  // A lane is a query. Its number is compared with the key's distance as floats, which are exact below 2^24.
  const Vector lane = hn::Iota(kFloats, static_cast<float>(v * kLanes));
  const int64_t first = key - p.first_all + 1;
  const auto is_behind = hn::Ge(lane, hn::Set(kFloats, static_cast<float>(first)));
  if (p.near_all == 0) return is_behind;
  return hn::And(is_behind, hn::Lt(lane, hn::Set(kFloats, static_cast<float>(first + p.window))));
}

/// Calls work(j) for the rows of a block, keys key_begin + j, that some query of the panel does not see.
template <class Work> HWY_INLINE void for_masked(const Panel& p, int64_t key_begin, int64_t rows, Work&& work) {
  const int64_t far = std::clamp<int64_t>(p.near_all - key_begin, 0, rows);
  for (int64_t j = 0; j < far; ++j) work(j);
  for (int64_t j = std::max(far, p.first_all - key_begin); j < rows; ++j) work(j);
}

/// c [rows, panel] (+)= x · t, x [rows, dim] with unit columns: the scores of a block of keys.
HWY_INLINE void times_panel(const float* x, int64_t stride, int64_t rows, int64_t dim, const float* t, int64_t width,
                            float* c) {
  product({rows, width, dim, x, stride, 1, t, width, c, width, 1, 0});
}

/// c [dim, panel] = beta · c + xᵀ · t for x [rows, dim].
HWY_INLINE void transposed_times_panel(const float* x, int64_t stride, int64_t rows, int64_t dim, const float* t,
                                       int64_t width, float* c, float beta) {
  product({dim, width, rows, x, 1, stride, t, width, c, width, 1, beta});
}

/// One vector of columns of a block of scores becomes probabilities. Returns the factor for what was summed before.
HWY_INLINE Vector soften_column(const Panel& p, int v, int64_t key_begin, int64_t rows, float* scores, float* max,
                                float* sum) {
  const Vector lowest = hn::Set(kFloats, -std::numeric_limits<float>::infinity());
  float* column = scores + v * kLanes;
  for_masked(p, key_begin, rows, [&](int64_t j) {
    float* s = column + j * p.width;
    hn::Store(hn::IfThenElse(seen(p, key_begin + j, v), hn::Load(kFloats, s), lowest), kFloats, s);
  });
  // Online softmax: exponents are formed from the greatest score so far. When this block raises it, what earlier blocks
  // summed was formed from a smaller one and shrinks by e^(before − top).
  const Vector before = hn::Load(kFloats, max + v * kLanes);
  Vector top = before;
  for (int64_t j = 0; j < rows; ++j) top = hn::Max(top, hn::Load(kFloats, column + j * p.width));
  // Of a query whose window begins behind this block nothing is summed: exponentials from −inf, and not its difference
  // from itself.
  const Vector from = hn::IfThenZeroElse(hn::Eq(top, lowest), top);
  Vector total = hn::Zero(kFloats);
  for (int64_t j = 0; j < rows; ++j) {
    const Vector e = Exp(kFloats, hn::Sub(hn::Load(kFloats, column + j * p.width), from));
    total = hn::Add(total, e);
    hn::Store(e, kFloats, column + j * p.width);
  }
  // Before the first block nothing was summed, and `before` is −inf.
  const Vector factor = key_begin == p.begin ? hn::Zero(kFloats) : Exp(kFloats, hn::Sub(before, from));
  hn::Store(top, kFloats, max + v * kLanes);
  hn::Store(fused(factor, hn::Load(kFloats, sum + v * kLanes), total), kFloats, sum + v * kLanes);
  return factor;
}

HWY_INLINE void scale_column(float* column, int64_t rows, int64_t width, Vector factor) {
  for (int64_t j = 0; j < rows; ++j, column += width)
    hn::Store(hn::Mul(factor, hn::Load(kFloats, column)), kFloats, column);
}

void forward_panel(const AttentionArgs& args, const AttentionSegment& s, int64_t head, int64_t begin, float* scratch) {
  const int64_t dim = args.head_dim, kv_head = head / (args.heads / args.kv_heads);
  const Panel p = panel_at(s, begin, args.window);
  float *qt = scratch, *out_t = qt + dim * p.width, *scores = out_t + dim * p.width,
        *max = scores + kKeyBlock * p.width;
  float* sum = max + p.width;
  const float* k = args.k.row<float>(s.k_begin) + kv_head * dim;
  const float* v = args.v.row<float>(s.k_begin) + kv_head * dim;
  const int64_t row = s.q_begin + begin, k_stride = args.k.row_stride(), v_stride = args.v.row_stride();
  // The scale goes into the copy of q once, not into every score.
  transpose(args.q.row<float>(row) + head * dim, args.q.row_stride(), p.queries, dim, static_cast<float>(args.scale),
            qt, p.width, p.width);
  // Neutral beginnings: the first block sets both, and also assigns outT (beta = 0 below).
  std::fill(max, max + p.width, -std::numeric_limits<float>::infinity());
  std::fill(sum, sum + p.width, 0.0f);
  for (int64_t j = p.begin; j < p.keys; j += kKeyBlock) {
    const int64_t rows = std::min(kKeyBlock, p.keys - j);
    times_panel(k + j * k_stride, k_stride, rows, dim, qt, p.width, scores);
    for (int c = 0; c < p.vectors(); ++c) {
      const Vector factor = soften_column(p, c, j, rows, scores, max, sum);
      if (j > p.begin) scale_column(out_t + c * kLanes, dim, p.width, factor);
    }
    transposed_times_panel(v + j * v_stride, v_stride, rows, dim, scores, p.width, out_t, j > p.begin ? 1.0f : 0.0f);
  }
  // One division a query at the end, in place of one for each key.
  for (int c = 0; c < p.vectors(); ++c)
    scale_column(out_t + c * kLanes, dim, p.width, hn::Div(hn::Set(kFloats, 1), hn::Load(kFloats, sum + c * kLanes)));
  transpose(out_t, p.width, dim, p.queries, 1, args.out.row<float>(row) + head * dim, args.out.row_stride(), dim);
  if (args.lse.empty()) return;
  // The backward pass forms probabilities as exp(score − lse), without a maximum or a sum of its own.
  for (int64_t i = 0; i < p.queries; ++i) args.lse.row<float>(row + i)[head] = max[i] + functions::log(sum[i]);
}

/// A task of the forward pass: every second panel of one head, so that two tasks share the triangle evenly.
void forward_task(const AttentionArgs& args, const AttentionSegment& s, int64_t head, int64_t parity, float* scratch) {
  for (int64_t begin = parity * kPanel; begin < s.q_end - s.q_begin; begin += 2 * kPanel)
    forward_panel(args, s, head, begin, scratch);
}

HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  FloatSums sums;
  for_float_lanes(n, [&](int64_t i, auto vector, auto place)
                         HWY_ATTR { sums.add_product(place, vector.load(a + i), vector.load(b + i)); });
  return sums.sum();
}

/// scores -> probabilities, dp -> ds = p (dp − delta), for one vector of columns.
HWY_INLINE void differentiate_column(const Panel& p, int v, int64_t key_begin, int64_t rows, const float* lse,
                                     const float* delta, float* scores, float* dp) {
  const Vector l = hn::Load(kFloats, lse + v * kLanes), d = hn::Load(kFloats, delta + v * kLanes);
  for (int64_t j = 0; j < rows; ++j) {
    float *s = scores + j * p.width + v * kLanes, *g = dp + j * p.width + v * kLanes;
    // exp(score − lse) is the probability itself: softmax is not run again.
    const int64_t key = key_begin + j;
    Vector e = Exp(kFloats, hn::Sub(hn::Load(kFloats, s), l));
    if (key >= p.first_all || key < p.near_all) e = hn::IfThenElseZero(seen(p, key, v), e);
    hn::Store(e, kFloats, s);
    hn::Store(hn::Mul(e, hn::Sub(hn::Load(kFloats, g), d)), kFloats, g);
  }
}

void backward_panel(const AttentionBackwardArgs& args, const AttentionSegment& s, int64_t head, int64_t begin,
                    KeyGradients into, float* scratch) {
  const int64_t dim = args.head_dim, kv_head = head / (args.heads / args.kv_heads), row = s.q_begin + begin;
  const Panel p = panel_at(s, begin, args.window);
  float *qt = scratch, *dout_t = qt + dim * p.width, *dq_t = dout_t + dim * p.width, *scores = dq_t + dim * p.width;
  float *dp = scores + kKeyBlock * p.width, *lse = dp + kKeyBlock * p.width, *delta = lse + p.width;
  const float *q = args.q.row<float>(row) + head * dim, *dout = args.dout.row<float>(row) + head * dim;
  const float* k = args.k.row<float>(s.k_begin) + kv_head * dim;
  const float* v = args.v.row<float>(s.k_begin) + kv_head * dim;
  const int64_t q_stride = args.q.row_stride(), o_stride = args.dout.row_stride();
  const int64_t k_stride = args.k.row_stride(), v_stride = args.v.row_stride();
  const float scale = static_cast<float>(args.scale);
  transpose(q, q_stride, p.queries, dim, scale, qt, p.width, p.width);
  transpose(dout, o_stride, p.queries, dim, 1, dout_t, p.width, p.width);
  // Lanes behind the last query hold zeros. Their columns are never summed: the products for dk and dv below run over
  // p.queries, and dq is written back for these alone.
  for (int64_t i = 0; i < p.width; ++i) {
    const bool inside = i < p.queries;
    lse[i] = inside ? args.lse.row<float>(row + i)[head] : 0;
    delta[i] = inside ? dot(dout + i * o_stride, args.out.row<float>(row + i) + head * dim, dim) : 0;
  }
  for (int64_t j = p.begin; j < p.keys; j += kKeyBlock) {
    const int64_t rows = std::min(kKeyBlock, p.keys - j);
    times_panel(k + j * k_stride, k_stride, rows, dim, qt, p.width, scores);
    times_panel(v + j * v_stride, v_stride, rows, dim, dout_t, p.width, dp);
    for (int c = 0; c < p.vectors(); ++c) differentiate_column(p, c, j, rows, lse, delta, scores, dp);
    // dV += Pᵀ dout and dK += dSᵀ q, chains over the queries of the panel that go on from those before.
    product({rows, dim, p.queries, scores, p.width, 1, dout, o_stride, into.dv + j * into.dv_stride, into.dv_stride, 1,
             1, true});
    product(
        {rows, dim, p.queries, dp, p.width, 1, q, q_stride, into.dk + j * into.dk_stride, into.dk_stride, 1, 1, true});
    transposed_times_panel(k + j * k_stride, k_stride, rows, dim, dp, p.width, dq_t, j > p.begin ? 1.0f : 0.0f);
  }
  transpose(dq_t, p.width, dim, p.queries, scale, args.dq.row<float>(row) + head * dim, args.dq.row_stride(), dim);
}

/// One head of a segment: dq; dv, and dk without the scale, of this head alone.
void backward_task(const AttentionBackwardArgs& args, const AttentionSegment& s, int64_t head, KeyGradients into,
                   float* scratch) {
  for (int64_t j = 0; j < s.k_end - s.k_begin; ++j) {
    std::fill_n(into.dk + j * into.dk_stride, args.head_dim, 0.0f);
    std::fill_n(into.dv + j * into.dv_stride, args.head_dim, 0.0f);
  }
  for (int64_t begin = 0; begin < s.q_end - s.q_begin; begin += kPanel)
    backward_panel(args, s, head, begin, into, scratch);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
namespace {

HWY_EXPORT(forward_task);
HWY_EXPORT(backward_task);

// With fewer tasks than this a task owns one query head: 3 key-value heads of one row would keep two threads busy 3/4
// of the time.
constexpr int64_t kFewTasks = 16;

/// Elements of one copy of dk (or dv) with a column block for each query head.
int64_t per_head_count(const AttentionBackwardArgs& args) { return args.k.rows() * args.heads * args.head_dim; }

/// Where the heads sum: key 0 of the batch and head 0. Without heads that share keys this is dk and dv themselves.
KeyGradients heads_place(const Context& ctx, const AttentionBackwardArgs& args) {
  if (args.heads == args.kv_heads)
    return {args.dk.row<float>(0), args.dv.row<float>(0), args.dk.row_stride(), args.dv.row_stride()};
  // Copies are [keys, heads · head_dim], dk's before dv's: a query head has columns of its own.
  float* copies = ctx.scratch.allocate({2, per_head_count(args)}, DType::f32).row<float>(0);
  return {copies, copies + per_head_count(args), args.heads * args.head_dim, args.heads * args.head_dim};
}

/// to = factor · (the sum of `group` runs of `dim` numbers, in ascending order). A single run may be `to` itself.
void join_runs(const float* runs, int64_t group, int64_t dim, float factor, float* to) {
  // Element by element within a run, so that the compiler makes vectors of it.
  if (group > 1)
    for (int64_t c = 0; c < dim; ++c) to[c] = runs[c] + runs[dim + c];
  for (int64_t h = 2; h < group; ++h)
    for (int64_t c = 0; c < dim; ++c) to[c] += runs[h * dim + c];
  if (factor != 1)
    for (int64_t c = 0; c < dim; ++c) to[c] *= factor;
}

/// dk and dv of one key and key-value head, from what the query heads summed.
void join_heads(const AttentionBackwardArgs& args, const KeyGradients& heads, int64_t key, int64_t kv_head) {
  const int64_t dim = args.head_dim, group = args.heads / args.kv_heads, from = kv_head * group * dim;
  join_runs(heads.dk + key * heads.dk_stride + from, group, dim, static_cast<float>(args.scale),
            args.dk.row<float>(key) + kv_head * dim);
  if (group > 1)
    join_runs(heads.dv + key * heads.dv_stride + from, group, dim, 1, args.dv.row<float>(key) + kv_head * dim);
}

/// As the arena rounds each of its allocations (core/arena.cpp), so that a plan equals the peak.
int64_t rounded_bytes(int64_t floats) { return (floats * size_of(DType::f32) + 63) / 64 * 64; }

}  // namespace

void attention(const Context& ctx, const AttentionArgs& args) {
  const auto scope = ctx.scratch.scope();
  const int64_t floats = forward_floats(args.head_dim);
  float* buffers = ctx.scratch.allocate({ctx.threads, floats}, DType::f32).row<float>(0);
  const auto task = HWY_DYNAMIC_DISPATCH(forward_task);
  const int64_t tasks = static_cast<int64_t>(args.segments.size()) * args.heads * 2;
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads)
  for (int64_t t = 0; t < tasks; ++t)
    task(args, args.segments[static_cast<size_t>(t / (2 * args.heads))], t / 2 % args.heads, t % 2,
         buffers + omp_get_thread_num() * floats);
}

void attention_backward(const Context& ctx, const AttentionBackwardArgs& args) {
  const auto scope = ctx.scratch.scope();
  const int64_t dim = args.head_dim, floats = backward_floats(dim);
  float* buffers = ctx.scratch.allocate({ctx.threads, floats}, DType::f32).row<float>(0);
  const KeyGradients heads = heads_place(ctx, args);
  const auto task = HWY_DYNAMIC_DISPATCH(backward_task);
  const auto run_head = [&](const AttentionSegment& s, int64_t head) {
    task(args, s, head,
         {heads.dk + s.k_begin * heads.dk_stride + head * dim, heads.dv + s.k_begin * heads.dv_stride + head * dim,
          heads.dk_stride, heads.dv_stride},
         buffers + omp_get_thread_num() * floats);
  };
  // Segments differ in length. Which thread takes which task does not show: a task sums all that it writes by itself.
  const auto segments = static_cast<int64_t>(args.segments.size());
  if (segments * args.kv_heads >= kFewTasks) {
    // A task is a key-value head, and joins its query heads while they are in the cache.
    const int64_t group = args.heads / args.kv_heads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads)
    for (int64_t t = 0; t < segments * args.kv_heads; ++t) {
      const AttentionSegment& s = args.segments[static_cast<size_t>(t / args.kv_heads)];
      const int64_t kv_head = t % args.kv_heads;
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) run_head(s, head);
      for (int64_t key = s.k_begin; key < s.k_end; ++key) join_heads(args, heads, key, kv_head);
    }
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads)
  for (int64_t t = 0; t < segments * args.heads; ++t)
    run_head(args.segments[static_cast<size_t>(t / args.heads)], t % args.heads);
  for (const AttentionSegment& s : args.segments) {
#pragma omp parallel for schedule(static) num_threads(ctx.threads)
    for (int64_t key = s.k_begin; key < s.k_end; ++key)
      for (int64_t kv_head = 0; kv_head < args.kv_heads; ++kv_head) join_heads(args, heads, key, kv_head);
  }
}

int64_t attention_scratch_bytes(const AttentionArgs& args, int threads) {
  return rounded_bytes(threads * forward_floats(args.head_dim));
}

int64_t attention_backward_scratch_bytes(const AttentionBackwardArgs& args, int threads) {
  // A plan must not depend on how a batch is cut into segments: the copies are counted wherever heads share.
  const int64_t copies = args.heads == args.kv_heads ? 0 : rounded_bytes(2 * per_head_count(args));
  return rounded_bytes(threads * backward_floats(args.head_dim)) + copies;
}

}  // namespace tessera::cpu
#endif
