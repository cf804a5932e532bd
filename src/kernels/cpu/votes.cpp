// Integer sums of the signs of weights, and the update of the weights by them.
//
//              block b   b + 1   b + 2  ...      A run of blocks (signs-inl.h) goes through all groups while it lies in
//   vote 0     4 words   4 words                 the first-level cache. For each tile of votes the sign words of the
//   vote 1     4 words   4 words                 run are made first; then each block in turn keeps its sums in
//   ...                                          registers down its column.
//
// With s the set of votes that are negative at a weight,  A = Σ_all value − Σ_s 2·value:  a vote costs one masked
// subtraction. Sums wrap modulo 2^32 on the way, which the last one undoes: |A| < 2^31.

#include <cmath>

#include "kernels/cpu/targets.h"
#include "kernels/votes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/votes.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/signs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kTile = 32;  // votes; 8 KB of words with 16 lanes: they leave room for weights and sums
// Sums of a whole block stay in 8 of 32 registers, or those of half a block in 8 of 16.
constexpr int64_t kWordsAtOnce = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

// ---- sums of a block

HWY_INLINE WordVec subtract_where(hn::Mask<Words> where, WordVec a, WordVec b) {
#if HWY_TARGET <= HWY_AVX3
  return hn::IfThenElse(where, hn::Sub(a, b), a);  // one instruction
#else
  return hn::Sub(a, hn::IfThenElseZero(where, b));
#endif
}

/// sums[128] = (kFirst: total; else: sums) − Σ over the tile of twice[vote] where the vote's sign is negative.
template <bool kFirst>
HWY_INLINE void add_tile(const uint32_t* words, const uint32_t* twice, int64_t votes, uint32_t total, uint32_t* sums) {
  constexpr int64_t kSums = kWordsAtOnce * kVectors;
  // Bit i of a word belongs to weight i of its 32: the masks that pick a vector's bits are the same for every word.
  WordVec bits[kVectors], a[kSums];
  for (int64_t j = 0; j < kVectors; ++j) bits[j] = bits_of_vector(j);
  for (int64_t part = 0; part < 4;
       part += kWordsAtOnce, words += kWordsAtOnce * kRunBlocks, sums += 32 * kWordsAtOnce) {
    for (int64_t i = 0; i < kSums; ++i)
      a[i] = kFirst ? hn::Set(kWords, total) : hn::Load(kWords, sums + i * kRunBlocks);
    for (int64_t v = 0; v < votes; ++v) {
      const auto value = hn::Set(kWords, twice[v]);
      // Unrolled, so that all sums have registers of their own; in a loop they would have to lie in memory.
#pragma GCC unroll 4
      for (int64_t w = 0; w < kWordsAtOnce; ++w) {
        const auto word = hn::Set(kWords, words[v * kRunWords + w * kRunBlocks]);
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
  HWY_ALIGN uint32_t words[kTile * kRunWords];
  HWY_ALIGN uint32_t sums[kRun + kRunBlocks];  // a vector may start anywhere in the run
  uint32_t twice[kTile];
};

void sum_votes(const VoteGroup& group, uint64_t block, int64_t blocks, Workspace& work) {
  const RoundKeys keys(group.seed);
  // Σ_all value, from which negative votes are subtracted twice. Unsigned: wrapping is defined, and undone in the end.
  uint32_t total = 0;
  for (const VoteTerm& vote : group.votes) total += static_cast<uint32_t>(vote.value);
  const auto count = static_cast<int64_t>(group.votes.size());
  // A group without votes goes through once, too, so that its sums are written: zeros.
  for (int64_t tile = 0; tile == 0 || tile < count; tile += kTile) {
    const int64_t votes = HWY_MIN(kTile, count - tile);
    for (int64_t v = 0; v < votes; ++v) {
      const VoteTerm& vote = group.votes[static_cast<size_t>(tile + v)];
      work.twice[v] = 2 * static_cast<uint32_t>(vote.value);
      const Direction z{.seed = group.seed, .round = group.round, .machine = vote.machine, .sample = vote.sample};
      sign_run(keys, z, block, work.words + v * kRunWords);
    }
    for (int64_t b = 0; b < blocks; ++b) {
      if (tile == 0)
        add_tile<true>(work.words + b, work.twice, votes, total, work.sums + b * kSignBlock);
      else
        add_tile<false>(work.words + b, work.twice, votes, total, work.sums + b * kSignBlock);
    }
  }
}

/// A = D · transformed, one period of at least a block at a time.
/// Hadamard directions of a group share the signs D and differ by a lane, so that
/// Σ_k value_k · z_k[p] = D[p] · (H q)[p mod K]: one transform of the votes serves all weights, and a weight costs a
/// table entry and a sign.
void sum_hadamard(const VoteGroup& group, uint64_t block, int64_t blocks, Workspace& work) {
  sign_run(RoundKeys(group.signs.seed), group.signs, block, work.words);
  const auto* table = reinterpret_cast<const uint32_t*>(group.transformed.data());
  uint64_t period = group.transformed.size();
  uint32_t repeated[kSignBlock];
  // A period is a power of two. One shorter than a block is repeated to a block's length, so that the loop below never
  // wraps within a block.
  if (period < kSignBlock) {
    for (int64_t i = 0; i < kSignBlock; ++i) repeated[i] = table[static_cast<uint64_t>(i) & (period - 1)];
    table = repeated;
    period = kSignBlock;
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const uint32_t* values = table + ((block + b) * kSignBlock & (period - 1));
    uint32_t* sums = work.sums + b * kSignBlock;
    for (int64_t j = 0; j < kVectors; ++j) {
      const auto bit = bits_of_vector(j);
      for (int64_t w = 0; w < 4; ++w) {
        const int64_t i = w * 32 + j * kRunBlocks;
        const auto value = hn::LoadU(kWords, values + i);
        const auto negative = hn::TestBit(hn::Set(kWords, work.words[w * kRunBlocks + b]), bit);
        // value − 2 · value is the negated value.
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

/// apply_votes of votes_exact.h
void apply(const VoteGroup& group, const uint32_t* sums, int64_t n, float* weights) {
  const hn::RebindToSigned<Floats> d32;
  const auto alpha = hn::Set(kFloats, group.alpha), mul = hn::Set(kFloats, group.mul);
  const bool decays = group.mul != 1;
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR {
    const auto sum = hn::ConvertTo(kFloats, hn::BitCast(d32, hn::LoadU(kWords, sums + i)));
    auto weight = vector.load(weights + i);
    // mul · weight is rounded by itself, before the fma: votes_exact.h.
    if (decays) weight = hn::Mul(mul, weight);
    vector.store(fused(alpha, sum, weight), weights + i);
  });
}

void update_range(const VoteGroup* groups, size_t count, int64_t begin, int64_t end, float* weights) {
  Workspace work;
  for_runs(begin, end, [&](uint64_t block, int64_t blocks, int64_t from, int64_t offset, int64_t n) HWY_ATTR {
    // All groups in order over one run before the next run: its weights are loaded into the cache once for many rounds.
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

void add_integers_range(const int32_t* integers, float factor, int64_t n, float* sums) {
  const hn::RebindToSigned<Floats> d32;
  const auto scale = hn::Set(kFloats, factor);
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR {
    // Loads move bits alone, so that integers may pass as floats until they are converted.
    const auto bits = vector.load(reinterpret_cast<const float*>(integers) + i);
    const auto value = hn::ConvertTo(kFloats, hn::BitCast(d32, bits));
    vector.store(fused(scale, value, vector.load(sums + i)), sums + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(update_range);
HWY_EXPORT(sum_range);
HWY_EXPORT(add_integers_range);

/// Passes over a weight that the group costs.
int64_t work_of(const VoteGroup& group) { return 1 + static_cast<int64_t>(group.votes.size()); }

}  // namespace

void vote_update(const Context& ctx, TensorView values, int64_t first, std::span<const VoteGroup> groups) {
  // How many passes over its weights a block costs: few weights with many votes are worth several threads, too.
  int64_t work = 0;
  for (const VoteGroup& group : groups) work += work_of(group);
  for_sign_blocks(ctx, first, values.shape.count(), work, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(update_range)
    (groups.data(), groups.size(), begin, end, values.row<float>(0) + (begin - first));
  });
}

void vote_sum(const Context& ctx, int64_t first, const VoteGroup& group, TensorView sum) {
  for_sign_blocks(ctx, first, sum.shape.count(), work_of(group), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(sum_range)(&group, begin, end, sum.row<int32_t>(0) + (begin - first));
  });
}

void add_integers(const Context& ctx, ConstView x, float factor, TensorView y) {
  parallel_for(ctx, y.shape.count(), 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(add_integers_range)
    (x.row<int32_t>(0) + begin, factor, end - begin, y.row<float>(0) + begin);
  });
}

}  // namespace tessera::cpu
#endif
