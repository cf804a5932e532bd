// Signs of weights by Philox, in vectors. Included once per instruction set by each kernel file that needs them.
//
//   block b   b + 1   b + 2  ...     A lane of a Philox vector is a block of 128 weights, four sign words:
//   4 words   4 words                a run is as many blocks as a vector has lanes.

#if defined(TESSERA_CPU_SIGNS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_SIGNS_INL_H_
#undef TESSERA_CPU_SIGNS_INL_H_
#else
#define TESSERA_CPU_SIGNS_INL_H_
#endif

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/sign_blocks.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {

using Words = hn::RebindToUnsigned<Floats>;
using Wide = hn::RepartitionToWide<Words>;
using WordVec = hn::Vec<Words>;
using WideVec = hn::Vec<Wide>;
constexpr Words kWords;
constexpr Wide kWide;

constexpr int64_t kRunBlocks = hn::MaxLanes(kWords);
constexpr int64_t kRun = kSignBlock * kRunBlocks;
constexpr int64_t kRunWords = 4 * kRunBlocks;  // by word and block: those of block b are at b, b + kRunBlocks, ...
constexpr int64_t kVectors = 32 / kRunBlocks;  // that one sign word spans

/// Ten Philox rounds' keys, one vector each.
struct RoundKeys {
  // The keys of all rounds are made once and then loaded, not computed anew for every run.
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

/// Counters stand in 64-bit lanes whose upper halves are never read: a product then needs no shuffle. Two vectors, of
/// the even and the odd blocks of a run, are in flight.
struct Counters {
  WideVec c0, c1, c2, c3;

  // The block's number is 48 bits long: its upper 16 share a word with the sample (direction_counter in
  // core/direction.h).
  Counters(WideVec block, const Direction& z)
      : c0(block),
        c1(hn::Or(hn::ShiftLeft<16>(hn::ShiftRight<32>(block)), hn::Set(kWide, uint64_t{z.sample}))),
        c2(hn::Set(kWide, uint64_t{z.machine})),
        c3(hn::Set(kWide, uint64_t{z.round})) {}

  HWY_INLINE void step(WideVec k0, WideVec k1) {
    // One Philox round. c1 and c3 become whole 64-bit products: their lower halves are the words, and as multiplication
    // reads lower halves alone, the upper ones need not be cleared.
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

/// The sign words of a run, without the lane of `z`.
HWY_INLINE void sign_run(const RoundKeys& keys, const Direction& z, uint64_t block, uint32_t* words) {
  // Lane i of `a` is block 2i of the run, of `b` block 2i + 1: interleaved they stand in the order of the blocks.
  const auto even = hn::Add(hn::Set(kWide, block), hn::ShiftLeft<1>(hn::Iota(kWide, 0)));
  Counters a(even, z), b(hn::Add(even, hn::Set(kWide, uint64_t{1})), z);
  for (int64_t i = 0; i < 10; ++i) {
    const auto k0 = keys[2 * i], k1 = keys[2 * i + 1];
    a.step(k0, k1);
    b.step(k0, k1);
  }
  // Word w of all blocks of the run lies together: a vector of words is one word of as many blocks.
  hn::Store(interleave(a.c0, b.c0), kWords, words);
  hn::Store(interleave(a.c1, b.c1), kWords, words + kRunBlocks);
  hn::Store(interleave(a.c2, b.c2), kWords, words + 2 * kRunBlocks);
  hn::Store(interleave(a.c3, b.c3), kWords, words + 3 * kRunBlocks);
}

/// Turns the signs by the Hadamard lane of `z`.
inline void turn_run(const Direction& z, uint64_t block, uint32_t* words) {
  // Word i / kRunBlocks of block i mod kRunBlocks: that is the layout that sign_run stores.
  for (int64_t i = 0; i < kRunWords; ++i)
    words[i] ^= walsh_word(z.lane, z.lanes, 4 * (block + i % kRunBlocks) + i / kRunBlocks);
}

/// Bit i of a sign word, for the weights of vector j.
HWY_INLINE WordVec bits_of_vector(int64_t j) {
  return hn::Shl(hn::Set(kWords, 1u), hn::Iota(kWords, static_cast<uint32_t>(j * kRunBlocks)));
}

/// Calls work(block, blocks, begin, offset, count) for each run that weights [begin, end) of the pool meet: `count`
/// weights from `begin` on, which is the weight `offset` of the run. Those outside of the range are computed with their
/// block and left alone.
template <class Work> HWY_INLINE void for_runs(int64_t begin, int64_t end, Work&& work) {
  while (begin < end) {
    // Starts are rounded down to a block, since one Philox counter gives the signs of a whole block.
    const int64_t start = begin & ~(kSignBlock - 1), stop = HWY_MIN(end, start + kRun);
    work(static_cast<uint64_t>(start / kSignBlock), (stop - start + kSignBlock - 1) / kSignBlock, begin, begin - start,
         stop - begin);
    begin = stop;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
