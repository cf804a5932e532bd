// Signs of weights by Philox, and integer sums of them.
//
//              block b   b + 1   b + 2  ...        A lane of a Philox vector is a block of 128 weights: a run of as many
//   vote 0     4 words   4 words                   blocks as a vector has lanes goes through all groups while it lies in
//   vote 1     4 words   4 words                   the first-level cache. For each tile of votes the sign words of the
//   ...                                            run are made first; then each block in turn keeps its sums in
//                                                  registers down its column.
//
// With s the set of votes that are negative at a weight,  A = Σ_all value − Σ_s 2·value:  a vote costs one masked
// subtraction. Sums wrap modulo 2^32 on the way, which the last one undoes: |A| < 2^31.

#include <cmath>

#include "kernels/cpu/targets.h"
#include "kernels/votes.h"
#include "kernels/votes_exact.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/votes.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

using Words = hn::RebindToUnsigned<Floats>;
using Wide = hn::RepartitionToWide<Words>;
using WordVec = hn::Vec<Words>;
using WideVec = hn::Vec<Wide>;
constexpr Words kWords;
constexpr Wide kWide;

constexpr int64_t kBlock = 128;
constexpr int64_t kRunBlocks = hn::MaxLanes(kWords);
constexpr int64_t kRun = kBlock * kRunBlocks;
constexpr int64_t kVectors = 32 / kRunBlocks;  // that one sign word spans
constexpr int64_t kTile = 32;  // votes; 8 KB of words with 16 lanes: they leave room for weights and sums
constexpr int64_t kTileWords = 4 * kRunBlocks;
// Sums of a whole block stay in 8 of 32 registers, or those of half a block in 8 of 16.
constexpr int64_t kWordsAtOnce = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

// ---- sign words

/// Ten Philox rounds' keys, one vector each.
struct RoundKeys {
  explicit RoundKeys(uint64_t seed) {
    auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int64_t i = 0; i < 10; ++i, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      hn::Store(hn::Set(kWords, k0), kWords, keys + 2 * i * kRunBlocks);
      hn::Store(hn::Set(kWords, k1), kWords, keys + (2 * i + 1) * kRunBlocks);
    }
  }
  HWY_INLINE WideVec operator[](int64_t i) const { return hn::BitCast(kWide, hn::Load(kWords, keys + i * kRunBlocks)); }
  HWY_ALIGN uint32_t keys[20 * kRunBlocks];
};

/// Counters stand in 64-bit lanes whose upper halves are never read: a product then needs no shuffle. Two vectors, of the
/// even and the odd blocks of a run, are in flight.
struct Counters {
  WideVec c0, c1, c2, c3;

  Counters(WideVec block, const Direction& z)
      : c0(block),
        c1(hn::Or(hn::ShiftLeft<16>(hn::ShiftRight<32>(block)), hn::Set(kWide, uint64_t{z.sample}))),
        c2(hn::Set(kWide, uint64_t{z.machine})),
        c3(hn::Set(kWide, uint64_t{z.round})) {}

  HWY_INLINE void step(WideVec k0, WideVec k1) {
    const auto p0 = hn::MulEven(hn::BitCast(kWords, c0), hn::Set(kWords, 0xD2511F53u));
    const auto p1 = hn::MulEven(hn::BitCast(kWords, c2), hn::Set(kWords, 0xCD9E8D57u));
    c0 = hn::Xor3(hn::ShiftRight<32>(p1), c1, k0);
    c1 = p1;
    c2 = hn::Xor3(hn::ShiftRight<32>(p0), c3, k1);
    c3 = p0;
  }
};

HWY_INLINE WordVec interleave(WideVec even, WideVec odd) {
  return hn::OddEven(hn::BitCast(kWords, hn::ShiftLeft<32>(odd)), hn::BitCast(kWords, even));
}

/// The sign words of a run, by word and block, without the lane of `z`.
HWY_INLINE void sign_run(const RoundKeys& keys, const Direction& z, uint64_t block, uint32_t* words) {
  const auto even = hn::Add(hn::Set(kWide, block), hn::ShiftLeft<1>(hn::Iota(kWide, 0)));
  Counters a(even, z), b(hn::Add(even, hn::Set(kWide, uint64_t{1})), z);
  for (int64_t i = 0; i < 10; ++i) {
    const auto k0 = keys[2 * i], k1 = keys[2 * i + 1];
    a.step(k0, k1);
    b.step(k0, k1);
  }
  hn::Store(interleave(a.c0, b.c0), kWords, words);
  hn::Store(interleave(a.c1, b.c1), kWords, words + kRunBlocks);
  hn::Store(interleave(a.c2, b.c2), kWords, words + 2 * kRunBlocks);
  hn::Store(interleave(a.c3, b.c3), kWords, words + 3 * kRunBlocks);
}

/// Turns the signs by the Hadamard lane of `z`.
void turn_run(const Direction& z, uint64_t block, uint32_t* words) {
  for (int64_t i = 0; i < kTileWords; ++i)
    words[i] ^= walsh_word(z.lane, z.lanes, 4 * (block + i % kRunBlocks) + i / kRunBlocks);
}

// ---- sums of a block

HWY_INLINE WordVec subtract_where(hn::Mask<Words> where, WordVec a, WordVec b) {
#if HWY_TARGET <= HWY_AVX3
  return hn::IfThenElse(where, hn::Sub(a, b), a);  // one instruction
#else
  return hn::Sub(a, hn::IfThenElseZero(where, b));
#endif
}

/// Bit i of a sign word, for the weights of vector j.
HWY_INLINE WordVec bits_of_vector(int64_t j) {
  return hn::Shl(hn::Set(kWords, 1u), hn::Iota(kWords, static_cast<uint32_t>(j * kRunBlocks)));
}

/// sums[128] = (kFirst: total; else: sums) − Σ over the tile of twice[vote] where the vote's sign is negative.
template <bool kFirst>
HWY_INLINE void add_tile(const uint32_t* words, const uint32_t* twice, int64_t votes, uint32_t total, uint32_t* sums) {
  constexpr int64_t kSums = kWordsAtOnce * kVectors;
  WordVec bits[kVectors], a[kSums];
  for (int64_t j = 0; j < kVectors; ++j) bits[j] = bits_of_vector(j);
  for (int64_t part = 0; part < 4;
       part += kWordsAtOnce, words += kWordsAtOnce * kRunBlocks, sums += 32 * kWordsAtOnce) {
    for (int64_t i = 0; i < kSums; ++i)
      a[i] = kFirst ? hn::Set(kWords, total) : hn::Load(kWords, sums + i * kRunBlocks);
    for (int64_t v = 0; v < votes; ++v) {
      const auto value = hn::Set(kWords, twice[v]);
#pragma GCC unroll 4
      for (int64_t w = 0; w < kWordsAtOnce; ++w) {
        const auto word = hn::Set(kWords, words[v * kTileWords + w * kRunBlocks]);
#pragma GCC unroll 8
        for (int64_t j = 0; j < kVectors; ++j)
          a[w * kVectors + j] = subtract_where(hn::TestBit(word, bits[j]), a[w * kVectors + j], value);
      }
    }
    for (int64_t i = 0; i < kSums; ++i) hn::Store(a[i], kWords, sums + i * kRunBlocks);
  }
}

/// What a run needs beside its weights.
struct Workspace {
  HWY_ALIGN uint32_t words[kTile * kTileWords];
  HWY_ALIGN uint32_t sums[kRun + kRunBlocks];  // a vector may start anywhere in the run
  uint32_t twice[kTile];
};

void sum_votes(const VoteGroup& group, uint64_t block, int64_t blocks, Workspace& work) {
  const RoundKeys keys(group.seed);
  uint32_t total = 0;
  for (const VoteTerm& vote : group.votes) total += static_cast<uint32_t>(vote.value);
  const auto count = static_cast<int64_t>(group.votes.size());
  for (int64_t tile = 0; tile == 0 || tile < count; tile += kTile) {
    const int64_t votes = HWY_MIN(kTile, count - tile);
    for (int64_t v = 0; v < votes; ++v) {
      const VoteTerm& vote = group.votes[static_cast<size_t>(tile + v)];
      work.twice[v] = 2 * static_cast<uint32_t>(vote.value);
      const Direction z{.seed = group.seed, .round = group.round, .machine = vote.machine, .sample = vote.sample};
      sign_run(keys, z, block, work.words + v * kTileWords);
    }
    for (int64_t b = 0; b < blocks; ++b) {
      if (tile == 0)
        add_tile<true>(work.words + b, work.twice, votes, total, work.sums + b * kBlock);
      else
        add_tile<false>(work.words + b, work.twice, votes, total, work.sums + b * kBlock);
    }
  }
}

/// A = D · transformed, one period of at least a block at a time.
void sum_hadamard(const VoteGroup& group, uint64_t block, int64_t blocks, Workspace& work) {
  sign_run(RoundKeys(group.signs.seed), group.signs, block, work.words);
  const auto* table = reinterpret_cast<const uint32_t*>(group.transformed.data());
  uint64_t period = group.transformed.size();
  uint32_t repeated[kBlock];
  if (period < kBlock) {
    for (int64_t i = 0; i < kBlock; ++i) repeated[i] = table[static_cast<uint64_t>(i) & (period - 1)];
    table = repeated;
    period = kBlock;
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const uint32_t* values = table + ((block + b) * kBlock & (period - 1));
    uint32_t* sums = work.sums + b * kBlock;
    for (int64_t j = 0; j < kVectors; ++j) {
      const auto bit = bits_of_vector(j);
      for (int64_t w = 0; w < 4; ++w) {
        const int64_t i = w * 32 + j * kRunBlocks;
        const auto value = hn::LoadU(kWords, values + i);
        const auto negative = hn::TestBit(hn::Set(kWords, work.words[w * kRunBlocks + b]), bit);
        hn::Store(subtract_where(negative, value, hn::Add(value, value)), kWords, sums + i);
      }
    }
  }
}

void sum_run(const VoteGroup& group, uint64_t block, int64_t blocks, Workspace& work) {
  if (group.transformed.empty())
    sum_votes(group, block, blocks, work);
  else
    sum_hadamard(group, block, blocks, work);
}

// ---- ranges of weights [begin, end), numbered in the pool

/// work(block, blocks, begin, offset, count) for each run that the range meets: `count` weights from `begin` on, which is
/// the weight `offset` of the run. Weights outside of the range are computed with their block and left alone.
template <class Work> HWY_INLINE void for_runs(int64_t begin, int64_t end, Work&& work) {
  while (begin < end) {
    const int64_t start = begin & ~(kBlock - 1), stop = HWY_MIN(end, start + kRun);
    work(static_cast<uint64_t>(start / kBlock), (stop - start + kBlock - 1) / kBlock, begin, begin - start,
         stop - begin);
    begin = stop;
  }
}

HWY_INLINE FloatVec fused_multiply_add(FloatVec a, FloatVec b, FloatVec c) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(a, b, c);
#else
  float x[kRunBlocks], y[kRunBlocks], z[kRunBlocks];
  hn::StoreU(a, kFloats, x);
  hn::StoreU(b, kFloats, y);
  hn::StoreU(c, kFloats, z);
  for (int64_t i = 0; i < kRunBlocks; ++i) z[i] = std::fma(x[i], y[i], z[i]);
  return hn::LoadU(kFloats, z);
#endif
}

/// apply_votes of votes_exact.h
void apply(const VoteGroup& group, const uint32_t* sums, int64_t n, float* weights) {
  const hn::RebindToSigned<Floats> d32;
  const auto alpha = hn::Set(kFloats, group.alpha), mul = hn::Set(kFloats, group.mul);
  const bool decays = group.mul != 1;
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR {
    const auto sum = hn::ConvertTo(kFloats, hn::BitCast(d32, hn::LoadU(kWords, sums + i)));
    auto weight = vector.load(weights + i);
    if (decays) weight = hn::Mul(mul, weight);
    vector.store(fused_multiply_add(alpha, sum, weight), weights + i);
  });
}

void update_range(const VoteGroup* groups, size_t count, int64_t begin, int64_t end, float* weights) {
  Workspace work;
  for_runs(begin, end, [&](uint64_t block, int64_t blocks, int64_t from, int64_t offset, int64_t n) HWY_ATTR {
    for (size_t g = 0; g < count; ++g) {
      sum_run(groups[g], block, blocks, work);
      apply(groups[g], work.sums + offset, n, weights + (from - begin));
    }
  });
}

void sum_range(const VoteGroup* group, int64_t begin, int64_t end, int32_t* sum) {
  Workspace work;
  for_runs(begin, end, [&](uint64_t block, int64_t blocks, int64_t from, int64_t offset, int64_t n) HWY_ATTR {
    sum_run(*group, block, blocks, work);
    std::memcpy(sum + (from - begin), work.sums + offset, static_cast<size_t>(n) * sizeof(int32_t));
  });
}

template <class W> void perturb_values(const W* values, const float* steps, int64_t n, float* out) {
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR {
    vector.store(hn::Add(vector.load(values + i), hn::LoadU(kFloats, steps + i)), out + i);
  });
}

/// Asks the second-level cache for the run after this one: memory would rest while signs are made, and a hardware prefetcher
/// starts anew at each page. perturb of 10 M weights takes 3.5 ms with it, 5.3 without, and `add` with its traffic 2.8.
HWY_INLINE void prefetch_next(const void* run, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const std::byte*>(run) + bytes + i, 0, 2);
}

/// ±scale for the weights of a run.
void step_run(const uint32_t* words, int64_t blocks, float scale, float* steps) {
  const auto plus = hn::Set(kFloats, scale), minus = hn::Set(kFloats, -scale);
  for (int64_t j = 0; j < kVectors; ++j) {
    const auto bit = bits_of_vector(j);
    for (int64_t b = 0; b < blocks; ++b) {
      for (int64_t w = 0; w < 4; ++w) {
        const auto negative = hn::TestBit(hn::Set(kWords, words[w * kRunBlocks + b]), bit);
        hn::Store(hn::IfThenElse(hn::RebindMask(kFloats, negative), minus, plus), kFloats,
                  steps + b * kBlock + w * 32 + j * kRunBlocks);
      }
    }
  }
}

void perturb_range(const void* values, DType dtype, const Direction* z, float scale, int64_t begin, int64_t end,
                   float* out) {
  HWY_ALIGN uint32_t words[kTileWords];
  HWY_ALIGN float steps[kRun + kRunBlocks];
  const RoundKeys keys(z->seed);
  const int64_t bytes = size_of(dtype);
  for_runs(begin, end, [&](uint64_t block, int64_t blocks, int64_t from, int64_t offset, int64_t n) HWY_ATTR {
    const int64_t i = from - begin;
    prefetch_next(static_cast<const std::byte*>(values) + i * bytes, n * bytes);
    prefetch_next(out + i, n * static_cast<int64_t>(sizeof(float)));
    sign_run(keys, *z, block, words);
    if (z->lanes != 0) turn_run(*z, block, words);
    step_run(words, blocks, scale, steps);
    if (dtype == DType::bf16)
      perturb_values(static_cast<const BFloat16*>(values) + i, steps + offset, n, out + i);
    else if (dtype == DType::f16)
      perturb_values(static_cast<const Float16*>(values) + i, steps + offset, n, out + i);
    else
      perturb_values(static_cast<const float*>(values) + i, steps + offset, n, out + i);
  });
}

// ---- digest

// A term is a chain of four products of 15 cycles each. Eight vectors abreast hide them: 1.4 G weights/s with AVX-512 and 0.8
// with AVX2, against 0.5 and 0.4 with one. Without either, scalar products are as fast.
constexpr int64_t kAbreast = 8;

HWY_INLINE void finalise_lanes(WideVec (&z)[kAbreast]) {
  const auto first = hn::Set(kWide, uint64_t{0xBF58476D1CE4E5B9u}),
             second = hn::Set(kWide, uint64_t{0x94D049BB133111EBu});
  for (auto& v : z) v = hn::Xor(v, hn::ShiftRight<30>(v));
  for (auto& v : z) v = hn::Mul(v, first);
  for (auto& v : z) v = hn::Xor(v, hn::ShiftRight<27>(v));
  for (auto& v : z) v = hn::Mul(v, second);
  for (auto& v : z) v = hn::Xor(v, hn::ShiftRight<31>(v));
}

/// Adds digest_term of votes_exact.h of each weight.
void digest_range(const float* weights, uint64_t first, int64_t n, StateDigest* digest) {
  int64_t i = 0;
#if HWY_TARGET <= HWY_AVX2
  const hn::Rebind<uint32_t, Wide> narrow;
  constexpr int64_t kLanes = hn::MaxLanes(kWide);
  auto place = hn::Mul(hn::Add(hn::Set(kWide, first + 1), hn::Iota(kWide, 0)), hn::Set(kWide, kGamma64));
  const auto step = hn::Set(kWide, kLanes * kGamma64), ones = hn::Set(kWide, ~uint64_t{0});
  auto sum = hn::Zero(kWide), check = sum;
  for (; i + kAbreast * kLanes <= n; i += kAbreast * kLanes) {
    WideVec z[kAbreast];
    for (int64_t j = 0; j < kAbreast; ++j, place = hn::Add(place, step)) {
      const auto* bits = reinterpret_cast<const uint32_t*>(weights) + i + j * kLanes;
      z[j] = hn::Xor(place, hn::PromoteTo(kWide, hn::LoadU(narrow, bits)));
    }
    finalise_lanes(z);
    for (const auto& term : z) sum = hn::Add(sum, term);
    for (auto& term : z) term = hn::Xor(term, ones);
    finalise_lanes(z);
    for (const auto& term : z) check = hn::Add(check, term);
  }
  uint64_t sums[kLanes], checks[kLanes];
  hn::StoreU(sum, kWide, sums);
  hn::StoreU(check, kWide, checks);
  for (int64_t j = 0; j < kLanes; ++j) *digest += {.sum = sums[j], .check = checks[j]};
#endif
  for (; i < n; ++i) {
    const uint64_t term = digest_term(weights[i], first + static_cast<uint64_t>(i));
    *digest += {.sum = term, .check = finalise64(~term)};
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <atomic>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/reference/reference_kernels.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(update_range);
HWY_EXPORT(sum_range);
HWY_EXPORT(perturb_range);
HWY_EXPORT(digest_range);

/// work(begin, end) on ranges of weights that cover [first, first + count), cut between blocks.
template <class Work>
void for_blocks(const Context& ctx, int64_t first, int64_t count, int64_t work_per_weight, Work&& work) {
  constexpr int64_t kBlock = 128;
  const int64_t from = first / kBlock, blocks = (first + count + kBlock - 1) / kBlock - from;
  std::atomic<bool> is_exact = true;
  parallel_for(ctx, blocks, kBlock * work_per_weight, [&](int64_t begin, int64_t end) {
    if (has_exact_rounding())
      work(std::max(first, (from + begin) * kBlock), std::min(first + count, (from + end) * kBlock));
    else
      is_exact = false;
  });
  TS_CHECK(is_exact, "a thread flushes denormals to zero or does not round to nearest");
}

/// Passes over a weight that the group costs.
int64_t work_of(const VoteGroup& group) { return 1 + static_cast<int64_t>(group.votes.size()); }

}  // namespace

void perturb(const Context& ctx, ConstView values, int64_t first, const Direction& z, float scale, TensorView out) {
  if (out.dtype == DType::f64) return reference::perturb(ctx, values, first, z, scale, out);
  const auto* in = static_cast<const std::byte*>(values.data);
  auto* to = static_cast<float*>(out.mutable_data());
  for_blocks(ctx, first, values.shape.count(), 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(perturb_range)
    (in + (begin - first) * size_of(values.dtype), values.dtype, &z, scale, begin, end, to + (begin - first));
  });
}

void vote_update(const Context& ctx, std::span<float> values, int64_t first, std::span<const VoteGroup> groups) {
  int64_t work = 0;
  for (const VoteGroup& group : groups) work += work_of(group);
  for_blocks(ctx, first, static_cast<int64_t>(values.size()), work, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(update_range)(groups.data(), groups.size(), begin, end, values.data() + (begin - first));
  });
}

void vote_sum(const Context& ctx, int64_t first, const VoteGroup& group, std::span<int32_t> sum) {
  for_blocks(ctx, first, static_cast<int64_t>(sum.size()), work_of(group), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(sum_range)(&group, begin, end, sum.data() + (begin - first));
  });
}

StateDigest state_digest(const Context& ctx, std::span<const float> values, int64_t first) {
  std::atomic<uint64_t> sum = 0, check = 0;  // integers: any order of the threads gives the same
  parallel_for(ctx, static_cast<int64_t>(values.size()), 1, [&](int64_t begin, int64_t end) {
    StateDigest part;
    HWY_DYNAMIC_DISPATCH(digest_range)
    (values.data() + begin, static_cast<uint64_t>(first + begin), end - begin, &part);
    sum += part.sum;
    check += part.check;
  });
  return {.sum = sum, .check = check};
}

}  // namespace tessera::cpu
#endif
