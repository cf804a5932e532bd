// A task owns a run for one key-value head. It takes 128 of its entries at a time, turned so that an entry is a lane,
// and walks the visits that have them: scores of up to kGroup queries as one product, exp(score − lse) of each, and
// sums over the queries ascending in 64 rows at a time, all entries of the block side by side.

#include "kernels/cpu/paged_mass.h"

#include <omp.h>

#include <algorithm>

#include "kernels/cpu/paged_scratch.h"
#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/paged_mass.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/paged_block-inl.h"

#ifndef TESSERA_KERNELS_CPU_PAGED_MASS_SHARED_
#define TESSERA_KERNELS_CPU_PAGED_MASS_SHARED_
namespace tessera::cpu {

constexpr int64_t kMassRows = 64;  // are summed before they are added to those before

}  // namespace tessera::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

/// Entries [begin, end) of a block: those of a visit.
struct MassBlock {
  const EntryBlock& entries;
  int64_t begin, end, kv_head;
};

/// sums[j] += exp(score + bias − lse) for the entries that a row sees.
HWY_INLINE void add_row(const PagedAttentionArgs& args, const PagedScratch& s, const MassBlock& b, int64_t row,
                        float lse, const float* scores, float* sums) {
  const hn::RebindToSigned<Floats> words;
  const auto r = static_cast<size_t>(row);
  constexpr int64_t kLowest = std::numeric_limits<int32_t>::min();
  const int64_t low = args.window > 0 ? std::max(kLowest, args.row_position[r] - args.window) : kLowest;
  const auto bound = hn::Set(words, args.row_bound[r]), from = hn::Set(words, static_cast<int32_t>(low));
  const auto entry = hn::Iota(words, 0);
  for (int64_t j = b.begin / kLanes * kLanes; j < b.end; j += kLanes) {
    const auto position = hn::Load(words, s.position + j);
    Vector z = hn::Load(kFloats, scores + j);
    if (b.entries.biased) z = hn::Add(z, hn::Load(kFloats, s.bias + j));
    const auto before = hn::Lt(entry, hn::Set(words, static_cast<int32_t>(b.begin - j)));
    const auto within = hn::AndNot(before, hn::Lt(entry, hn::Set(words, static_cast<int32_t>(b.end - j))));
    const auto seen = hn::AndNot(hn::Gt(position, bound), hn::And(hn::Gt(position, from), within));
    const Vector e = Exp(kFloats, hn::Sub(z, hn::Set(kFloats, lse)));
    hn::Store(hn::Add(hn::Load(kFloats, sums + j), hn::IfThenElseZero(hn::RebindMask(kFloats, seen), e)), kFloats,
              sums + j);
  }
}

/// sums += what the queries [begin, end) give, of all query heads of a key-value head, row by row.
HWY_INLINE void add_queries(const PagedAttentionArgs& args, const TensorView& lse, const PagedScratch& s,
                            const MassBlock& b, int64_t begin, int64_t end, float* sums) {
  const int64_t group = args.heads / args.kv_heads, dim = args.head_dim, head = b.kv_head * group;
  const Vector scale = hn::Set(kFloats, static_cast<float>(args.scale));
  for (int64_t i = begin; i < end; ++i) {
    const float* q = args.q.row<float>(i / group) + (head + i % group) * dim;
    for (int64_t d = 0; d < dim; d += kLanes)
      store_some(hn::Mul(scale, load_some(q + d, dim - d)), s.q + (i - begin) * dim + d, dim - d);
  }
  product({end - begin, b.end - b.begin, dim, s.q, dim, 1, s.turned_k + b.begin, kScoreStride, s.scores + b.begin,
           kScoreStride, 1, 0});
  for (int64_t i = begin; i < end; ++i) {
    const int64_t row = i / group;
    if (args.mass_rows.empty() || args.mass_rows[static_cast<size_t>(row)] != 0)
      add_row(args, s, b, row, lse.row<float>(row)[head + i % group], s.scores + (i - begin) * kScoreStride, sums);
  }
}

/// mass += what the rows of a visit give to entries of a block.
HWY_INLINE void add_visit(const PagedAttentionArgs& args, const TensorView& lse, const PagedScratch& s,
                          const AttentionVisit& visit, const MassBlock& b, float* mass) {
  const int64_t group = args.heads / args.kv_heads;
  for (int64_t row = visit.row_begin, next = 0; row < visit.row_end; row = next) {
    next = std::min<int64_t>(visit.row_end, (row / kMassRows + 1) * kMassRows);
    HWY_ALIGN float sums[kScoreStride] = {};
    for (int64_t i = row * group; i < next * group; i += kGroup)
      add_queries(args, lse, s, b, i, std::min(next * group, i + kGroup), sums);
    for (int64_t j = b.begin; j < b.end; ++j) mass[j] += sums[j];
  }
}

void mass_task(const PagedAttentionArgs& args, const TensorView& lse, int32_t run, int64_t kv_head, float* memory) {
  const PagedScratch s(memory, args.head_dim, kGroup);
  const auto r = static_cast<size_t>(run);
  const int64_t length = length_of(args, args.runs[r], kv_head);
  float* mass = args.mass.row<float>(0) + args.mass_offset[r * args.kv_heads + kv_head];
  std::fill_n(mass, length, 0.0f);
  const AttentionVisit alone{0, 0, 0, static_cast<int32_t>(length), run, run + 1};
  for (int64_t first = 0; first < length; first += kKeyBlock) {
    EntryBlock b;
    find_entries(args, alone, kv_head, first, std::min(length, first + kKeyBlock), s, b);
    find_rows(args.pages.k, args.pages.k_scale, b, args.head_dim, false, s.k, b.keys);
    transpose(s.k, args.head_dim, b.entries, args.head_dim, 1, s.turned_k, kScoreStride, b.entries);
    for (const AttentionVisit& visit : args.visits) {
      if (run < visit.run_begin || run >= visit.run_end) continue;
      int64_t before = first;  // the number of the block's first entry in the visit
      for (int32_t i = visit.run_begin; i < run; ++i)
        before += length_of(args, args.runs[static_cast<size_t>(i)], kv_head);
      const int64_t begin = std::max<int64_t>(0, visit.begin - before), end = std::min(b.entries, visit.end - before);
      if (begin < end) add_visit(args, lse, s, visit, {b, begin, end, kv_head}, mass + first);
    }
  }
  const int64_t heads = args.heads / args.kv_heads;
  const auto group = static_cast<float>(heads);
  for (int64_t i = 0; i < length; ++i) mass[i] /= group;
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
namespace {

HWY_EXPORT(mass_task);

int64_t floats_of(const PagedAttentionArgs& args) { return PagedScratch(nullptr, args.head_dim, kGroup).floats; }

}  // namespace

void add_up_mass(const Context& ctx, const PagedAttentionArgs& args, const TensorView& lse) {
  const int64_t floats = floats_of(args);
  float* buffers = ctx.scratch.allocate({ctx.threads, floats}, DType::f32).row<float>(0);
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads)
  for (size_t i = 0; i < args.mass_offset.size(); ++i)
    if (args.mass_offset[i] >= 0) HWY_DYNAMIC_DISPATCH(mass_task)
  (args, lse, static_cast<int32_t>(i / args.kv_heads), static_cast<int64_t>(i) % args.kv_heads,
   buffers + omp_get_thread_num() * floats);
}

int64_t mass_scratch_bytes(const PagedAttentionArgs& args, int threads) {
  return (threads * floats_of(args) * size_of(DType::f32) + 63) / 64 * 64;
}

}  // namespace tessera::cpu
#endif
