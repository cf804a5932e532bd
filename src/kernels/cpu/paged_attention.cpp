// Attention over pages on the CPU: an entry is a lane, a query a row.
//
// A task owns the queries of a tile for one key-value head, its rows times the query heads that share it. It walks the
// spans of 1,024 entries, in each the visits of its rows, and in these blocks of 128 entries:
//
//   turned K [head_dim × block]          for up to kGroup queries at a time:
//   V        [block × head_dim]            S = q · turned K     [queries × block]
//                                          P = exp(S − max)     row by row; Σ over 8 or 16 rows at a time, turned
//                                          acc = acc · r + P V  [queries × head_dim]
//
// so that a block of a prefix is read from memory, widened and turned once for all queries of a tile, and the state of
// a query (acc, max, sum) is a row that any visit finds again. A span ends by merging into `out`. Where there are fewer
// tiles than threads the spans of a tile are tasks of their own, which wait for their turn before they merge: the same
// sums in the same order. A block of which a query sees nothing leaves its state untouched.

#include "kernels/paged_attention.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/paged_mass.h"
#include "kernels/cpu/paged_scratch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/paged_attention.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/paged_block-inl.h"
#include "kernels/cpu/paged_merge-inl.h"

#ifndef TESSERA_KERNELS_CPU_PAGED_ATTENTION_SHARED_
#define TESSERA_KERNELS_CPU_PAGED_ATTENTION_SHARED_
namespace tessera::cpu {

/// Spans [begin, end) of a tile for one key-value head.
struct PagedTask {
  AttentionTile tile;
  int64_t kv_head, begin, end;
  int32_t* spans_merged;  // of this tile and head, by all tasks; nullptr: this one has them all
};

}  // namespace tessera::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

/// Some neighbouring queries of a tile.
struct Queries {
  int64_t first, count;
};

/// Entries of a block that some of the queries may see: all behind the first and before the last such one.
HWY_INLINE Rows rows_that_are_seen(const PagedScratch& s, const EntryBlock& b, Queries queries) {
  int32_t low = s.low[queries.first], bound = s.bound[queries.first];
  for (int64_t i = 1; i < queries.count; ++i) {
    low = std::min(low, s.low[queries.first + i]);
    bound = std::max(bound, s.bound[queries.first + i]);
  }
  const auto seen = [&](int64_t j) { return s.position[j] > low && s.position[j] <= bound; };
  Rows rows{0, b.entries};
  while (rows.begin < rows.end && !seen(rows.end - 1)) --rows.end;
  while (rows.begin < rows.end && !seen(rows.begin)) ++rows.begin;
  return rows;
}

/// What was scored of a block by some queries, in whole vectors: columns [begin, end) of rows kScoreStride apart.
struct Scores {
  float* at;
  Rows rows;
  int64_t begin, end;

  Scores(float* scores, Rows seen)
      : at(scores), rows(seen), begin(seen.begin / kLanes * kLanes), end((seen.end + kLanes - 1) / kLanes * kLanes) {}
  float* row(int64_t i) const { return at + i * kScoreStride; }
};

/// Adds biases and hides what the query does not see. Returns the greatest score, or `top`.
HWY_INLINE float mask_row(const PagedScratch& s, const EntryBlock& b, const Scores& scores, int64_t query, float* z,
                          float top) {
  const hn::RebindToSigned<Floats> words;
  const Vector lowest = hn::Set(kFloats, kUnseen);
  if (b.biased)
    for (int64_t j = scores.begin; j < scores.end; j += kLanes)
      hn::Store(hn::Add(hn::Load(kFloats, z + j), hn::Load(kFloats, s.bias + j)), kFloats, z + j);
  std::fill(z + scores.begin, z + scores.rows.begin, kUnseen);
  std::fill(z + scores.rows.end, z + scores.end, kUnseen);
  if (b.highest > s.bound[query] || b.lowest <= s.low[query]) {
    const auto bound = hn::Set(words, s.bound[query]), low = hn::Set(words, s.low[query]);
    for (int64_t j = scores.begin; j < scores.end; j += kLanes) {
      const auto position = hn::Load(words, s.position + j);
      const auto sees = hn::AndNot(hn::Gt(position, bound), hn::Gt(position, low));
      hn::Store(hn::IfThenElse(hn::RebindMask(kFloats, sees), hn::Load(kFloats, z + j), lowest), kFloats, z + j);
    }
  }
  Vector greatest = hn::Set(kFloats, top);
  for (int64_t j = scores.begin; j < scores.end; j += kLanes) greatest = hn::Max(greatest, hn::Load(kFloats, z + j));
  return hn::GetLane(hn::MaxOfLanes(kFloats, greatest));
}

/// Σ of each of up to kLanes rows, over their columns ascending: turned, a row is a lane.
HWY_INLINE Vector sums_of_rows(const Scores& scores, int64_t first, int64_t count) {
  Vector total = hn::Zero(kFloats);
  for (int64_t j = scores.begin; j < scores.end; j += kLanes) {
    Vector v[kLanes];
    for (int r = 0; r < kLanes; ++r)
      v[r] = r < count ? hn::Load(kFloats, scores.row(first + r) + j) : hn::Zero(kFloats);
    turn(v);
    for (int c = 0; c < kLanes; ++c) total = hn::Add(total, v[c]);
  }
  return total;
}

/// What a block leaves of each query of a group.
struct Softened {
  HWY_ALIGN float factor[kGroup + kMostLanes];  // for what was summed before
  HWY_ALIGN float total[kGroup + kMostLanes];   // Σ exp(score − max)
};

/// Scores become probabilities from the greatest score so far; max and sum of the queries move on.
HWY_INLINE void soften_rows(const PagedScratch& s, const EntryBlock& b, Queries queries, const Scores& scores,
                            Softened& softened) {
  HWY_ALIGN float tops[kGroup + kMostLanes], from[kGroup + kMostLanes];
  float *max = s.max + queries.first, *sum = s.sum + queries.first;
  for (int64_t i = 0; i < queries.count; ++i)
    tops[i] = mask_row(s, b, scores, queries.first + i, scores.row(i), max[i]);
  for (int64_t i = 0; i < queries.count; i += kLanes) {
    // A query that has seen nothing yet: exponentials from −∞, and not its difference from itself.
    const Vector top = load_some(tops + i, queries.count - i), before = load_some(max + i, queries.count - i);
    const Vector base = hn::IfThenZeroElse(hn::Eq(top, hn::Set(kFloats, kUnseen)), top);
    hn::Store(base, kFloats, from + i);
    hn::Store(Exp(kFloats, hn::Sub(before, base)), kFloats, softened.factor + i);
    store_some(top, max + i, queries.count - i);
  }
  for (int64_t i = 0; i < queries.count; ++i) {
    const Vector base = hn::Set(kFloats, from[i]);
    float* z = scores.row(i);
    for (int64_t j = scores.begin; j < scores.end; j += kLanes)
      hn::Store(Exp(kFloats, hn::Sub(hn::Load(kFloats, z + j), base)), kFloats, z + j);
  }
  for (int64_t i = 0; i < queries.count; i += kLanes) {
    const int64_t left = queries.count - i;
    const Vector total = sums_of_rows(scores, i, std::min<int64_t>(left, kLanes));
    hn::Store(total, kFloats, softened.total + i);
    store_some(fused(hn::Load(kFloats, softened.factor + i), load_some(sum + i, left), total), sum + i, left);
  }
}

/// acc = acc · factor + added, or added where the query had summed nothing.
HWY_INLINE void rescale_row(float* acc, const float* added, int64_t dim, float factor, bool first) {
  const Vector f = hn::Set(kFloats, factor);
  if (first) {
    std::copy_n(added, dim, acc);
    return;
  }
  for (int64_t d = 0; d < dim; d += kLanes) {
    const int64_t left = dim - d;
    store_some(hn::Add(hn::Mul(f, load_some(acc + d, left)), load_some(added + d, left)), acc + d, left);
  }
}

/// A block of entries and up to kGroup queries.
HWY_INLINE void attend_group(const PagedAttentionArgs& args, const PagedScratch& s, const EntryBlock& b,
                             Queries queries) {
  const Rows rows = rows_that_are_seen(s, b, queries);
  if (rows.begin == rows.end) return;
  const int64_t dim = args.head_dim;
  product({queries.count, rows.end - rows.begin, dim, s.q + queries.first * dim, dim, 1, s.turned_k + rows.begin,
           kScoreStride, s.scores + rows.begin, kScoreStride, 1, 0});
  const Scores scores(s.scores, rows);
  bool had_none[kGroup];
  for (int64_t i = 0; i < queries.count; ++i) had_none[i] = s.sum[queries.first + i] == 0;
  Softened softened;
  soften_rows(s, b, queries, scores, softened);
  bool first = true;
  for (const ValueRows* v = b.values; v != b.values + b.value_count; ++v) {
    const int64_t begin = std::max(rows.begin, v->first), end = std::min(rows.end, v->first + v->count);
    if (begin >= end) continue;
    product({queries.count, dim, end - begin, s.scores + begin, kScoreStride, 1, v->data + (begin - v->first) * dim,
             dim, s.added, dim, 1, first ? 0.0f : 1.0f, true});
    first = false;
  }
  for (int64_t i = 0; i < queries.count; ++i)
    if (softened.total[i] != 0)
      rescale_row(s.acc + (queries.first + i) * dim, s.added + i * dim, dim, softened.factor[i], had_none[i]);
}

/// Entries [begin, end) of a visit, which are of one span, and its queries.
HWY_INLINE void attend_visit(const PagedAttentionArgs& args, const AttentionVisit& visit, int64_t kv_head,
                             int64_t begin, int64_t end, const PagedScratch& s, Queries queries) {
  for (int64_t e = begin, next = 0; e < end; e = next) {
    next = std::min(end, (e / kKeyBlock + 1) * kKeyBlock);
    EntryBlock b;
    find_entries(args, visit, kv_head, e, next, s, b);
    const Rows rows = rows_that_are_seen(s, b, queries);
    if (rows.begin == rows.end) continue;
    turn_keys(args, s, b);
    find_values(args, queries.count, s, b);
    for (int64_t q = 0; q < queries.count; q += kGroup)
      attend_group(args, s, b, {queries.first + q, std::min(kGroup, queries.count - q)});
  }
}

/// Queries of a tile, times the scale, and what they see.
HWY_INLINE void load_queries(const PagedAttentionArgs& args, const PagedTask& task, const PagedScratch& s) {
  const int64_t group = args.heads / args.kv_heads, width = group * args.head_dim;
  const auto scale = static_cast<float>(args.scale);
  for (int64_t row = task.tile.row_begin; row < task.tile.row_end; ++row) {
    const int64_t i = row - task.tile.row_begin;
    scale_row(args.q.row<float>(row) + task.kv_head * width, width, scale, s.q + i * width);
    const auto r = static_cast<size_t>(row);
    constexpr int64_t kLowest = std::numeric_limits<int32_t>::min();
    const int64_t low = args.window > 0 ? std::max(kLowest, args.row_position[r] - args.window) : kLowest;
    std::fill_n(s.low + i * group, group, static_cast<int32_t>(low));
    std::fill_n(s.bound + i * group, group, args.row_bound[r]);
  }
}

/// What the queries summed over a span joins their outputs. @param first  there are no outputs yet
HWY_INLINE void finish_span(const PagedAttentionArgs& args, const TensorView& lse, const PagedTask& task,
                            const PagedScratch& s, bool first) {
  const int64_t group = args.heads / args.kv_heads, dim = args.head_dim, head = task.kv_head * group;
  const int64_t rows = task.tile.row_end - task.tile.row_begin, queries = rows * group;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t g = 0; g < group; ++g)
      s.before[i * group + g] = first ? kUnseen : lse.row<float>(task.tile.row_begin + i)[head + g];
  for (int64_t i = 0; i < queries; i += kLanes) {
    const Vector sum = hn::Load(kFloats, s.sum + i), part = hn::Add(hn::Load(kFloats, s.max + i), Log(kFloats, sum));
    const auto nothing = hn::Eq(sum, hn::Zero(kFloats));
    hn::Store(hn::Div(hn::Set(kFloats, 1), sum), kFloats, s.inverse + i);
    hn::Store(hn::IfThenElse(nothing, hn::Set(kFloats, kUnseen), part), kFloats, s.part + i);
  }
  merge_factors(s.before, s.part, queries, s.kept, s.taken, s.lse);
  for (int64_t q = 0; q < queries; ++q) {
    const int64_t row = task.tile.row_begin + q / group;
    float* out = args.out.row<float>(row) + (head + q % group) * dim;
    const float* acc = s.acc + q * dim;
    if (s.part[q] == kUnseen) {
      if (first) std::fill_n(out, dim, 0.0f);
    } else if (s.before[q] == kUnseen) {
      scale_row(acc, dim, s.inverse[q], out);
    } else {
      merge_row(acc, dim, s.inverse[q], s.kept[q], s.taken[q], out);
    }
    lse.row<float>(row)[head + q % group] = s.lse[q];
  }
}

/// @param lse  [rows, heads], of the spans that are merged
void paged_task(const PagedAttentionArgs& args, const TensorView& lse, const PagedTask& task, float* memory) {
  const int64_t group = args.heads / args.kv_heads;
  const PagedScratch s(memory, args.head_dim, tile_queries(group));
  const AttentionTile& tile = task.tile;
  const int64_t queries = (tile.row_end - tile.row_begin) * group;
  load_queries(args, task, s);
  for (int64_t span = task.begin; span < task.end; ++span) {
    std::fill_n(s.max, queries + kMostLanes, kUnseen);
    std::fill_n(s.sum, queries + kMostLanes, 0.0f);
    for (int32_t i = tile.visit_begin; i < tile.visit_end; ++i) {
      const AttentionVisit& visit = args.visits[static_cast<size_t>(args.tile_visits[static_cast<size_t>(i)])];
      const int64_t row_begin = std::max(visit.row_begin, tile.row_begin),
                    row_end = std::min(visit.row_end, tile.row_end);
      const int64_t begin = std::max<int64_t>(visit.begin, span * kKeySpan);
      if (row_begin >= row_end || begin >= std::min<int64_t>(visit.end, (span + 1) * kKeySpan)) continue;
      const int64_t end = std::min(end_of(args, visit, task.kv_head), (span + 1) * kKeySpan);
      attend_visit(args, visit, task.kv_head, begin, end, s,
                   {(row_begin - tile.row_begin) * group, (row_end - row_begin) * group});
    }
    if (task.spans_merged != nullptr) {
      // Whoever has the spans before has begun earlier and waits for nobody behind it.
      const std::atomic_ref<int32_t> merged(*task.spans_merged);
      while (merged.load(std::memory_order_acquire) < span) std::this_thread::yield();
    }
    finish_span(args, lse, task, s, span == 0);
    if (task.spans_merged != nullptr)
      std::atomic_ref<int32_t>(*task.spans_merged).store(static_cast<int32_t>(span + 1), std::memory_order_release);
  }
}

/// One row of merge_attention.
void merge_rows(const float* other, const float* other_lse, int64_t heads, int64_t dim, float* out, float* lse) {
  for (int64_t first = 0; first < heads; first += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, heads - first);
    HWY_ALIGN float kept[kLanes], taken[kLanes], both[kLanes];
    merge_factors(lse + first, other_lse + first, count, kept, taken, both);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t head = first + i;
      if (other_lse[head] == kUnseen) continue;
      if (lse[head] == kUnseen)
        std::copy_n(other + head * dim, dim, out + head * dim);
      else
        merge_row(other + head * dim, dim, 1, kept[i], taken[i], out + head * dim);
    }
    std::copy_n(both, count, lse + first);
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
namespace {

HWY_EXPORT(paged_task);
HWY_EXPORT(merge_rows);

int64_t rounded_bytes(int64_t floats) { return (floats * size_of(DType::f32) + 63) / 64 * 64; }

/// Spans that some row of the tile has entries in; one at least, which writes what sees nothing.
int64_t spans_of(const PagedAttentionArgs& args, const AttentionTile& tile, int64_t kv_head) {
  int64_t end = 1;
  for (int32_t i = tile.visit_begin; i < tile.visit_end; ++i)
    end = std::max(end,
                   end_of(args, args.visits[static_cast<size_t>(args.tile_visits[static_cast<size_t>(i)])], kv_head));
  return (end + kKeySpan - 1) / kKeySpan;
}

/// With as many tasks all threads are busy nearly to the end.
int64_t enough_tasks(const Context& ctx) { return 2 * ctx.threads; }

}  // namespace

void paged_attention(const Context& ctx, const PagedAttentionArgs& args) {
  const auto scope = ctx.scratch.scope();
  const int64_t floats = paged_floats(args.head_dim, args.heads / args.kv_heads);
  float* buffers = ctx.scratch.allocate({ctx.threads, floats}, DType::f32).row<float>(0);
  const TensorView lse = args.lse.empty() ? ctx.scratch.allocate({args.q.shape[0], args.heads}, DType::f32) : args.lse;
  const auto merged = ctx.scratch.allocate({enough_tasks(ctx)}, DType::i32).as<int32_t>();
  const auto run = [&](const PagedTask& task) {
    HWY_DYNAMIC_DISPATCH(paged_task)(args, lse, task, buffers + omp_get_thread_num() * floats);
  };
  const int64_t pairs = static_cast<int64_t>(args.tiles.size()) * args.kv_heads;
  const auto tile_of = [&](int64_t pair) { return args.tiles[static_cast<size_t>(pair / args.kv_heads)]; };
  if (pairs >= enough_tasks(ctx) || ctx.threads == 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads)
    for (int64_t p = 0; p < pairs; ++p)
      run({tile_of(p), p % args.kv_heads, 0, spans_of(args, tile_of(p), p % args.kv_heads), nullptr});
  } else {
    // All first spans are taken before all second ones, so that what a later one waits for is running or done.
    std::fill(merged.begin(), merged.end(), 0);
    int64_t spans = 1;
    for (int64_t p = 0; p < pairs; ++p) spans = std::max(spans, spans_of(args, tile_of(p), p % args.kv_heads));
#pragma omp parallel for schedule(monotonic : dynamic, 1) num_threads(ctx.threads)
    for (int64_t t = 0; t < pairs * spans; ++t) {
      const int64_t p = t % pairs, span = t / pairs;
      if (span < spans_of(args, tile_of(p), p % args.kv_heads))
        run({tile_of(p), p % args.kv_heads, span, span + 1, &merged[static_cast<size_t>(p)]});
    }
  }
  if (!args.mass.empty()) add_up_mass(ctx, args, lse);
  if (!args.bytes.empty()) args.bytes.as<int64_t>()[0] += bytes_read(args);
}

void merge_attention(const Context& ctx, ConstView other_out, ConstView other_lse, int64_t head_dim, TensorView out,
                     TensorView lse) {
  const int64_t heads = lse.shape[1];
  const auto merge = HWY_DYNAMIC_DISPATCH(merge_rows);
  parallel_for(ctx, lse.shape[0], heads * head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      merge(other_out.row<float>(row), other_lse.row<float>(row), heads, head_dim, out.row<float>(row),
            lse.row<float>(row));
  });
}

int64_t paged_attention_scratch_bytes(const PagedAttentionArgs& args, int threads) {
  const int64_t lse = args.lse.empty() ? rounded_bytes(args.q.shape[0] * args.heads) : 0;
  const int64_t mass = args.mass.empty() ? 0 : mass_scratch_bytes(args, threads);
  return rounded_bytes(threads * paged_floats(args.head_dim, args.heads / args.kv_heads)) + lse +
         rounded_bytes(2 * threads) + mass;
}

}  // namespace tessera::cpu
#endif
