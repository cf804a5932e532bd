// A Philox counter covers eight columns, so a vector of counters covers 8 · lanes. The four words of a counter,
// interleaved, are its eight 16-bit lanes in column order.

#include <cmath>

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dropout.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

using Words = hn::RebindToUnsigned<Floats>;
using WordVec = hn::Vec<Words>;
constexpr Words kWords;

/// The 64-bit products of all lanes with `factor`, as high and low words.
HWY_INLINE void multiply_words(WordVec a, uint32_t factor, WordVec& high, WordVec& low) {
  // MulEven multiplies the 32-bit lanes of even number to 64 bits. The odd ones are shifted into even places for a
  // second product, and the halves of both are woven together again.
  const hn::RepartitionToWide<Words> d64;
  const auto f = hn::Set(kWords, factor);
  const auto even = hn::MulEven(a, f);
  const auto odd = hn::MulEven(hn::BitCast(kWords, hn::ShiftRight<32>(hn::BitCast(d64, a))), f);
  high = hn::OddEven(hn::BitCast(kWords, odd), hn::BitCast(kWords, hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(kWords, hn::ShiftLeft<32>(odd)), hn::BitCast(kWords, even));
}

/// philox4x32 (core/random.h) of the counters {draw, block + lane, weight}; stores the words of each lane together.
HWY_INLINE void philox_lanes(uint64_t draw, uint32_t block, uint32_t weight, uint64_t key, uint32_t* out) {
  auto c0 = hn::Set(kWords, static_cast<uint32_t>(draw)), c1 = hn::Set(kWords, static_cast<uint32_t>(draw >> 32));
  auto c2 = hn::Iota(kWords, block), c3 = hn::Set(kWords, weight);
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  // Philox4x32-10: two products a round, their high halves mixed with the other words and the key; the key takes a step
  // of a Weyl sequence after each round. The constants are the published ones (Salmon et al., SC 2011).
  for (int round = 0; round < 10; ++round) {
    WordVec high0, low0, high1, low1;
    multiply_words(c0, 0xD2511F53u, high0, low0);
    multiply_words(c2, 0xCD9E8D57u, high1, low1);
    c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(kWords, k0));
    c1 = low1;
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(kWords, k1));
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  hn::StoreInterleaved4(c0, c1, c2, c3, kWords, out);
}

template <bool kAccumulate>
void drop(const float* x, int64_t n, const uint32_t* lanes, uint32_t threshold, float scale, float* y) {
  // A 16-bit lane, uniform in [0, 65536), is compared with the threshold: dropped when it is below.
  const auto factor = hn::Set(kFloats, scale), limit = hn::BitCast(kFloats, hn::Set(kWords, threshold));
  const hn::RebindToSigned<Floats> d32;
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR {
    const hn::Rebind<uint16_t, Floats> d16;
    const auto lane = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(lanes) + i));
    const auto dropped = hn::RebindMask(kFloats, hn::Lt(lane, hn::BitCast(d32, limit)));
    auto value = hn::IfThenZeroElse(dropped, hn::Mul(vector.load(x + i), factor));
    if constexpr (kAccumulate) value = hn::Add(vector.load(y + i), value);
    vector.store(value, y + i);
  });
}

void dropout_row(const float* x, int64_t dim, uint64_t draw, uint32_t weight, uint64_t key, uint32_t threshold,
                 float scale, bool accumulate, float* y) {
  const auto columns = 8 * static_cast<int64_t>(hn::Lanes(kWords));
  // One vector of counters: four words a lane, eight columns a counter.
  HWY_ALIGN uint32_t lanes[4 * HWY_MAX_BYTES / sizeof(uint32_t)];
  for (int64_t c = 0; c < dim; c += columns) {
    philox_lanes(draw, static_cast<uint32_t>(c / 8), weight, key, lanes);
    const int64_t n = HWY_MIN(columns, dim - c);
    if (accumulate)
      drop<true>(x + c, n, lanes, threshold, scale, y + c);
    else
      drop<false>(x + c, n, lanes, threshold, scale, y + c);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "core/random.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(dropout_row);

}  // namespace

void dropout(const Context& ctx, ConstView x, const DropoutKey& key, TensorView y, Write write) {
  // The key depends on the run and the step, the counter on row, column and weight: no state has to be kept, and the
  // backward pass draws the same mask again.
  const uint64_t bits = mix64(mix64(key.seed) ^ key.step);
  const auto threshold = static_cast<uint32_t>(std::lround(static_cast<double>(key.probability) * 65536));
  // What is kept is scaled up, so that the expectation of y is x and an evaluation needs no dropout at all.
  const float scale = 1.0f / (1.0f - key.probability);
  parallel_for(ctx, x.rows(), x.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) HWY_DYNAMIC_DISPATCH(dropout_row)
    (x.row<float>(r), x.cols(), static_cast<uint64_t>(key.draw_index[r]), key.weight, bits, threshold, scale,
     write == Write::accumulate, y.row<float>(r));
  });
}

}  // namespace tessera::cpu
#endif
