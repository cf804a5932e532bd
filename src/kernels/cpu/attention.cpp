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
// Keys that no query of a vector sees are not visited (attention_panel-inl.h). Blocks begin at multiples of kKeyBlock
// all the same, so that a query's sums are formed in the same order whichever panel it is in. Spans of kKeySpan keys
// are finished by themselves, and their outputs merged in ascending order: so who has one long document can share it
// out.
//
// A query's numbers depend on its own segment alone: keys that it does not see add exact zeros. Backward, each query
// head of a segment sums dk and dv in chains over its queries, which go on from panel to panel. Heads that share keys
// sum into copies of their own, which are added in ascending head order; the scale of the scores is applied to the
// result. A task owns all query heads of a key-value head or, where that leaves too few tasks, one of them or a part of
// its keys: the sums are the same.

#include "kernels/attention.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>

#include "core/functions/functions.h"
#include "kernels/cpu/attention_heads.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/attention_panel-inl.h"
#include "kernels/cpu/attention_softmax-inl.h"

#ifndef TESSERA_KERNELS_CPU_ATTENTION_SHARED_
#define TESSERA_KERNELS_CPU_ATTENTION_SHARED_
namespace tessera::cpu {

/// Keys [begin, end) of a segment, whose dk and dv a backward task sums. A head can have two such tasks: then dq goes
/// on from what the first one left (without the scale), panel by panel.
struct KeyPart {
  int64_t begin, end;
  int32_t* queries_done;  // by the task of the keys in front; nullptr for a head of one task
};

/// Floats of one thread's buffers, in rows of a panel of the greatest width. Forward: qT, outT, what a block adds to
/// it, outT of a later span, a block of scores, and per query the maximum, the sum and lse. Backward: qT, doutT, dqT,
/// what a block adds to it, copies of rows, the scores, their gradients, lse and delta.
inline int64_t forward_floats(int64_t head_dim) { return (4 * head_dim + kKeyBlock + 3) * kMaxPanel; }
inline int64_t backward_floats(int64_t head_dim) { return (6 * head_dim + 2 * kKeyBlock + 2) * kMaxPanel; }

}  // namespace tessera::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

/// Where a forward panel sums.
struct ForwardSums {
  float *added, *scores;  // what a block of keys adds; its scores
  float *max, *sum;       // of each query, over one span
  float *out, *lse;       // over all spans so far: [dim, panel], [panel]
  float* span_out;        // over a later span alone

  ForwardSums(float* scratch, int64_t dim, int64_t width)
      : added(scratch),
        scores(added + dim * width),
        max(scores + kKeyBlock * width),
        sum(max + width),
        out(sum + width),
        lse(out + dim * width),
        span_out(lse + width) {}
};

/// Attention of a panel over the keys of one span. @param out  [dim, panel]; lse comes into `sums.sum`
HWY_INLINE void attend_span(const AttentionArgs& args, const AttentionSegment& s, int64_t kv_head, const Panel& p,
                            Rows keys, const float* qt, const ForwardSums& sums, float* out) {
  const int64_t dim = args.head_dim, width = p.width, k_stride = args.k.row_stride(), v_stride = args.v.row_stride();
  // Neutral beginnings: the first block sets both, and also assigns `out`.
  std::fill_n(sums.max, width, -std::numeric_limits<float>::infinity());
  std::fill_n(sums.sum, width, 0.0f);
  for (int64_t j = keys.begin; j < keys.end; j += kKeyBlock) {
    const Block b(p, j);
    const Pieces pieces(b);
    const int64_t key = s.k_begin + j;
    times_panel(pieces, args.k.row<float>(key) + kv_head * dim, k_stride, dim, qt, width, sums.scores);
    Vector factors[kTileCols];
    for (int c = 0; c < p.vectors(); ++c) factors[c] = soften_column(b, c, sums.scores, sums.max, sums.sum);
    transposed_times_panel(pieces, args.v.row<float>(key) + kv_head * dim, v_stride, dim, sums.scores, width,
                           b.begins_span() ? out : sums.added);
    if (b.begins_span()) continue;
    for (int c = 0; c < p.vectors(); ++c)
      rescale_column(out + c * kLanes, sums.added + c * kLanes, dim, width, factors[c]);
  }
  for (int c = 0; c < p.vectors(); ++c)
    finish_column(out + c * kLanes, dim, width, sums.max + c * kLanes, sums.sum + c * kLanes);
}

/// @param next  the panel that follows begins so many queries further on
void forward_panel(const AttentionArgs& args, const AttentionSegment& s, int64_t head, int64_t begin, int64_t next,
                   float* scratch) {
  const int64_t dim = args.head_dim, kv_head = head / (args.heads / args.kv_heads);
  const Panel p = panel_at(s, begin, args.window);
  const int64_t width = p.width, row = s.q_begin + begin, q_stride = args.q.row_stride();
  float* qt = scratch;
  const ForwardSums sums(qt + dim * width, dim, width);
  const float* q = args.q.row<float>(row) + head * dim;
  // The scale goes into the copy of q once, not into every score.
  transpose(q, q_stride, p.queries, dim, static_cast<float>(args.scale), qt, width, width);
  if (p.queries == kPanel) {  // of short documents there is no next one, and all is near
    prefetch_rows(args.out.row<float>(row) + head * dim, args.out.row_stride(), p.queries, dim);
    prefetch_rows(q + next * q_stride, q_stride, std::clamp<int64_t>(s.q_end - row - next, 0, kPanel), dim);
  }
  for (int64_t from = p.begin, to = 0; from < p.keys; from = to) {
    to = std::min(p.keys, (from / kKeySpan + 1) * kKeySpan);
    const bool first = from == p.begin;
    attend_span(args, s, kv_head, p, {from, to}, qt, sums, first ? sums.out : sums.span_out);
    if (first)
      std::copy_n(sums.sum, width, sums.lse);
    else
      for (int c = 0; c < p.vectors(); ++c)
        merge_column({sums.out + c * kLanes, sums.lse + c * kLanes},
                     {sums.span_out + c * kLanes, sums.sum + c * kLanes}, dim, width);
  }
  transpose(sums.out, width, dim, p.queries, 1, args.out.row<float>(row) + head * dim, args.out.row_stride(), dim);
  if (args.lse.empty()) return;
  // The backward pass forms probabilities as exp(score − lse), without a maximum or a sum of its own.
  for (int64_t i = 0; i < p.queries; ++i) args.lse.row<float>(row + i)[head] = sums.lse[i];
}

/// A task of the forward pass: every second panel of one head, so that two tasks share the triangle evenly.
void forward_task(const AttentionArgs& args, const AttentionSegment& s, int64_t head, int64_t parity, float* scratch) {
  for (int64_t begin = parity * kPanel; begin < s.q_end - s.q_begin; begin += 2 * kPanel)
    forward_panel(args, s, head, begin, 2 * kPanel, scratch);
}

HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  FloatSums sums;
  for_float_lanes(n, [&](int64_t i, auto vector, auto place)
                         HWY_ATTR { sums.add_product(place, vector.load(a + i), vector.load(b + i)); });
  return sums.sum();
}

/// scores -> probabilities, dp -> ds = p (dp − delta), for one vector of columns.
HWY_INLINE void differentiate_column(const Block& b, int v, const float* lse, const float* delta, float* scores,
                                     float* dp) {
  const Vector l = hn::Load(kFloats, lse + v * kLanes), d = hn::Load(kFloats, delta + v * kLanes);
  const Rows rows = b.visited[v], all = b.seen_by_all(v);
  for (int64_t j = rows.begin; j < rows.end; ++j) {
    float *s = scores + j * b.panel.width + v * kLanes, *g = dp + j * b.panel.width + v * kLanes;
    // exp(score − lse) is the probability itself: softmax is not run again.
    Vector e = Exp(kFloats, hn::Sub(hn::Load(kFloats, s), l));
    if (j < all.begin || j >= all.end) e = hn::IfThenElseZero(lanes_that_see(b, j, v), e);
    hn::Store(e, kFloats, s);
    hn::Store(hn::Mul(e, hn::Sub(hn::Load(kFloats, g), d)), kFloats, g);
  }
}

/// Of queries that stand `row` rows behind the first of all: lse, and delta = Σ dout · out along the row.
HWY_INLINE void load_rows_of_panel(const AttentionBackwardArgs& args, int64_t row, int64_t head, const Panel& p,
                                   float* lse, float* delta) {
  const int64_t dim = args.head_dim;
  // Lanes behind the last query hold zeros. Their columns are never summed: the products for dk and dv run over
  // p.queries, and dq is written back for these alone.
  for (int64_t i = 0; i < p.width; ++i) {
    const bool inside = i < p.queries;
    lse[i] = inside ? args.lse.row<float>(row + i)[head] : 0;
    delta[i] =
        inside ? dot(args.dout.row<float>(row + i) + head * dim, args.out.row<float>(row + i) + head * dim, dim) : 0;
  }
}

/// @param next  queries of the panel that follows
HWY_INLINE void prefetch_panel(const AttentionBackwardArgs& args, int64_t row, int64_t head, int64_t next) {
  const int64_t dim = args.head_dim, after = row + kPanel;
  prefetch_rows(args.dq.row<float>(row) + head * dim, args.dq.row_stride(), kPanel, dim);
  if (next == 0) return;
  for (const ConstView& view : {args.q, args.dout, args.out})
    prefetch_rows(view.row<float>(after) + head * dim, view.row_stride(), next, dim);
}

/// Rows that a product reads again and again: where they lie or, if that is multiples of 1 KB apart, in `copy`, since
/// these fall into few sets of the first-level cache and push each other out.
struct NearRows {
  const float* data;
  int64_t stride;

  HWY_INLINE NearRows(ConstView from, int64_t row, int64_t col, int64_t rows, int64_t cols, float* copy)
      : data(from.row<float>(row) + col), stride(from.row_stride()) {
    if (stride % 256 != 0) return;
    for (int64_t r = 0; r < rows; ++r) std::copy_n(data + r * stride, cols, copy + r * cols);
    data = copy, stride = cols;
  }
};

/// One panel of queries and the keys of a part. @param scratch  backward_floats
void backward_panel(const AttentionBackwardArgs& args, const AttentionSegment& s, int64_t head, int64_t begin,
                    const KeyPart& part, KeyGradients into, float* scratch) {
  const int64_t dim = args.head_dim, kv_head = head / (args.heads / args.kv_heads), row = s.q_begin + begin;
  const Panel p = panel_at(s, begin, args.window);
  const int64_t width = p.width;
  float *qt = scratch, *dout_t = qt + dim * width, *dq_t = dout_t + dim * width, *added = dq_t + dim * width;
  float *copies = added + dim * width, *scores = copies + 2 * dim * width;
  float *dp = scores + kKeyBlock * width, *lse = dp + kKeyBlock * width, *delta = lse + width;
  float* dq = args.dq.row<float>(row) + head * dim;
  const int64_t dq_stride = args.dq.row_stride(), k_stride = args.k.row_stride(), v_stride = args.v.row_stride();
  const float scale = static_cast<float>(args.scale);
  const NearRows q(args.q, row, head * dim, p.queries, dim, copies);
  const NearRows dout(args.dout, row, head * dim, p.queries, dim, copies + dim * width);
  transpose(q.data, q.stride, p.queries, dim, scale, qt, width, width);
  transpose(dout.data, dout.stride, p.queries, dim, 1, dout_t, width, width);
  load_rows_of_panel(args, row, head, p, lse, delta);
  if (p.queries == kPanel) prefetch_panel(args, row, head, std::clamp<int64_t>(s.q_end - row - kPanel, 0, kPanel));
  if (p.begin < part.begin) transpose(dq, dq_stride, p.queries, dim, 1, dq_t, width, width);
  for (int64_t j = std::max(p.begin, part.begin); j < std::min(p.keys, part.end); j += kKeyBlock) {
    const Block b(p, j);
    const Pieces pieces(b);
    const float* k = args.k.row<float>(s.k_begin + j) + kv_head * dim;
    times_panel(pieces, k, k_stride, dim, qt, width, scores);
    times_panel(pieces, args.v.row<float>(s.k_begin + j) + kv_head * dim, v_stride, dim, dout_t, width, dp);
    for (int c = 0; c < p.vectors(); ++c) differentiate_column(b, c, lse, delta, scores, dp);
    // dV += Pᵀ dout and dK += dSᵀ q.
    panel_times(b, pieces, scores, dout.data, dout.stride, dim, into.dv + j * into.dv_stride, into.dv_stride);
    panel_times(b, pieces, dp, q.data, q.stride, dim, into.dk + j * into.dk_stride, into.dk_stride);
    transposed_times_panel(pieces, k, k_stride, dim, dp, width, b.is_first() ? dq_t : added);
    if (b.is_first()) continue;
    for (int c = 0; c < p.vectors(); ++c)
      rescale_column(dq_t + c * kLanes, added + c * kLanes, dim, width, hn::Set(kFloats, 1));
  }
  transpose(dq_t, width, dim, p.queries, p.keys <= part.end ? scale : 1, dq, dq_stride, dim);
}

/// Sums of keys [begin, end) begin at zero.
HWY_INLINE void clear_keys(const KeyGradients& into, int64_t begin, int64_t end, int64_t dim) {
  for (int64_t key = begin; key < end; ++key) {
    std::fill_n(into.dk + key * into.dk_stride, dim, 0.0f);
    std::fill_n(into.dv + key * into.dv_stride, dim, 0.0f);
  }
}

/// One head of a segment and its keys of a part: dq; dv, and dk without the scale, of this head alone.
void backward_task(const AttentionBackwardArgs& args, const AttentionSegment& s, int64_t head, const KeyPart& part,
                   KeyGradients into, float* scratch) {
  for (int64_t begin = 0; begin < s.q_end - s.q_begin; begin += kPanel) {
    const Panel p = panel_at(s, begin, args.window);
    // The panel is the first that sees its own keys: their sums begin with it.
    clear_keys(into, std::max(begin == 0 ? 0 : p.own, part.begin), std::min(p.keys, part.end), args.head_dim);
    if (p.begin >= part.end || p.keys <= part.begin) continue;
    if (p.begin < part.begin) {
      // Whoever sums the keys in front has begun earlier and waits for nobody.
      const std::atomic_ref<int32_t> done(*part.queries_done);
      while (done.load(std::memory_order_acquire) < begin + p.queries) std::this_thread::yield();
    }
    backward_panel(args, s, head, begin, part, into, scratch);
    if (part.begin == 0 && part.queries_done)
      std::atomic_ref<int32_t>(*part.queries_done)
          .store(static_cast<int32_t>(begin + p.queries), std::memory_order_release);
  }
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

/// Where the keys of a segment are cut so that both parts take about as long: of n keys under a causal mask, those
/// before x are half of the triangle where x = n (1 − √½).
int64_t cut_of_keys(const AttentionBackwardArgs& args, const AttentionSegment& s) {
  const int64_t keys = s.k_end - s.k_begin, share = args.window > 0 ? keys / 2 : keys * 3 / 10;
  return std::max<int64_t>(1, (share + kKeyBlock / 2) / kKeyBlock) * kKeyBlock;
}

/// Whether so many equal tasks leave more than one twentieth of the threads' time idle at the end.
bool is_uneven(int64_t tasks, int64_t threads) {
  const int64_t rounds = (tasks + threads - 1) / threads;
  return (rounds * threads - tasks) * 20 > tasks;
}

void attention_backward(const Context& ctx, const AttentionBackwardArgs& args) {
  const auto scope = ctx.scratch.scope();
  const int64_t dim = args.head_dim, floats = backward_floats(dim), group = args.heads / args.kv_heads;
  float* buffers = ctx.scratch.allocate({ctx.threads, floats}, DType::f32).row<float>(0);
  const KeyGradients heads = heads_place(ctx, args);
  const auto task = HWY_DYNAMIC_DISPATCH(backward_task);
  const auto run_head = [&](const AttentionSegment& s, int64_t head, const KeyPart& part) {
    task(args, s, head, part,
         {heads.dk + s.k_begin * heads.dk_stride + head * dim, heads.dv + s.k_begin * heads.dv_stride + head * dim,
          heads.dk_stride, heads.dv_stride},
         buffers + omp_get_thread_num() * floats);
  };
  // Segments differ in length. Which thread takes which task does not show: each number is summed in its order.
  const auto segments = static_cast<int64_t>(args.segments.size()), tasks = segments * args.heads;
  if (segments * args.kv_heads >= kFewTasks) {
    // A task is a key-value head, and joins its query heads while they are in the cache.
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads)
    for (int64_t t = 0; t < segments * args.kv_heads; ++t) {
      const AttentionSegment& s = args.segments[static_cast<size_t>(t / args.kv_heads)];
      const int64_t kv_head = t % args.kv_heads;
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
        run_head(s, head, {0, s.k_end - s.k_begin, nullptr});
      for (int64_t key = s.k_begin; key < s.k_end; ++key) join_heads(args, heads, key, kv_head);
    }
    return;
  }
  // Nine heads keep two threads busy for 4.5 of 5 rounds: then the keys of a head are two tasks. All first ones are
  // taken before all second ones, so that what a second one waits for is running or done.
  const int64_t parts = is_uneven(tasks, ctx.threads) ? 2 : 1;
  const auto done = ctx.scratch.allocate({kFewTasks * group}, DType::i32).as<int32_t>();
  std::fill(done.begin(), done.end(), 0);
#pragma omp parallel for schedule(monotonic : dynamic, 1) num_threads(ctx.threads)
  for (int64_t t = 0; t < tasks * parts; ++t) {
    const AttentionSegment& s = args.segments[static_cast<size_t>(t % tasks / args.heads)];
    const int64_t keys = s.k_end - s.k_begin, cut = parts == 1 ? keys : std::min(keys, cut_of_keys(args, s));
    const int64_t begin = t < tasks ? 0 : cut, end = t < tasks ? cut : keys;
    run_head(s, t % args.heads, {begin, end, &done[static_cast<size_t>(t % tasks)]});
  }
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
  const int64_t progress = rounded_bytes(kFewTasks * args.heads / args.kv_heads);
  return rounded_bytes(threads * backward_floats(args.head_dim)) + copies + progress;
}

}  // namespace tessera::cpu
#endif
