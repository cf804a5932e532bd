// Squares of a matrix that is stored by rows, turned in registers so that a lane is a row:
//
//                 k →                                k ↓
//   kLanes rows [ a few elements ]  →  element(s) of [ lanes: rows ], widened to f32
//
// Included once per SIMD target by files that use foreach_target.h, hence the toggled guard.
#if defined(TESSERA_CPU_TURNED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_TURNED_INL_H_
#undef TESSERA_CPU_TURNED_INL_H_
#else
#define TESSERA_CPU_TURNED_INL_H_
#endif

#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

// A block is turned as 32-bit words, so that two 16-bit elements travel together and are widened behind it.
using Words = hn::RebindToUnsigned<Floats>;
constexpr int kQuad = 4;  // words of a row that are turned at a time
template <class T> constexpr int kInWord = 4 / static_cast<int>(sizeof(T));
template <class T> constexpr int kInQuad = kQuad* kInWord<T>;
constexpr int64_t kQuadBytes = 4 * kQuad;

/// Four words of the rows 4 l: block l of the result is that of row 4 l. kSpare: there are registers to spare.
template <bool kSpare> HWY_INLINE Vector load_blocks(const std::byte* at, int64_t row_bytes) {
  const auto row = [&](int l) { return reinterpret_cast<const float*>(at + 4 * l * row_bytes); };
#if HWY_TARGET <= HWY_AVX3
  const hn::Half<Floats> half;
  const hn::Half<decltype(half)> quarter;
  return hn::Combine(kFloats, hn::Combine(half, hn::LoadU(quarter, row(3)), hn::LoadU(quarter, row(2))),
                     hn::Combine(half, hn::LoadU(quarter, row(1)), hn::LoadU(quarter, row(0))));
#elif HWY_TARGET <= HWY_AVX2
  // A blend takes any port, and a register more. An insertion takes one of the two ports that interleaving is bound by.
  const hn::Half<Floats> half;
  if (!kSpare) return hn::Combine(kFloats, hn::LoadU(half, row(1)), hn::LoadU(half, row(0)));
  return hn::ConcatUpperLower(kFloats, hn::LoadDup128(kFloats, row(1)), hn::LoadDup128(kFloats, row(0)));
#else
  return hn::LoadU(kFloats, row(0));
#endif
}

/// Squares of 4 x 4 words within the 128-bit blocks of four vectors.
HWY_INLINE void turn_squares(const Vector (&w)[kQuad], Vector (&v)[kQuad]) {
  const hn::Repartition<double, Floats> pairs;
  const auto low = hn::BitCast(pairs, hn::InterleaveLower(kFloats, w[0], w[1]));
  const auto high = hn::BitCast(pairs, hn::InterleaveUpper(kFloats, w[0], w[1]));
  const auto low2 = hn::BitCast(pairs, hn::InterleaveLower(kFloats, w[2], w[3]));
  const auto high2 = hn::BitCast(pairs, hn::InterleaveUpper(kFloats, w[2], w[3]));
  v[0] = hn::BitCast(kFloats, hn::InterleaveLower(pairs, low, low2));
  v[1] = hn::BitCast(kFloats, hn::InterleaveUpper(pairs, low, low2));
  v[2] = hn::BitCast(kFloats, hn::InterleaveLower(pairs, high, high2));
  v[3] = hn::BitCast(kFloats, hn::InterleaveUpper(pairs, high, high2));
}

/// The elements of turned words, widened.
HWY_INLINE void widen(Vector v, Vector (&to)[1], const float*) { to[0] = v; }
HWY_INLINE void widen(Vector v, Vector (&to)[2], const BFloat16*) {
  const auto word = hn::BitCast(Words(), v);
  to[0] = hn::BitCast(kFloats, hn::ShiftLeft<16>(word));
  to[1] = hn::BitCast(kFloats, hn::And(word, hn::Set(Words(), 0xffff0000u)));
}
HWY_INLINE void widen(Vector v, Vector (&to)[2], const Float16*) {
#if HWY_TARGET <= HWY_AVX3
  // The first elements of all words, and the second ones: halves that are widened as they are.
  const hn::Repartition<uint16_t, Floats> halves;
  const hn::Half<decltype(halves)> half;
  const auto both = hn::BitCast(halves, v);
  const hn::Rebind<hwy::float16_t, Floats> narrow;
  to[0] = hn::PromoteTo(kFloats, hn::BitCast(narrow, hn::LowerHalf(half, hn::ConcatEven(halves, both, both))));
  to[1] = hn::PromoteTo(kFloats, hn::BitCast(narrow, hn::LowerHalf(half, hn::ConcatOdd(halves, both, both))));
#else
  const auto word = hn::BitCast(Words(), v);
  to[0] = widen_f16(hn::And(word, hn::Set(Words(), 0xffffu)));
  to[1] = widen_f16(hn::ShiftRight<16>(word));
#endif
}

/// kInQuad<T> elements of each of the kLanes rows that begin at `from`.
template <class T> struct Turned {
  Vector words[kQuad];

  template <bool kSpare = true> HWY_INLINE void load(const std::byte* from, int64_t row_bytes) {
    Vector rows[kQuad];
    for (int r = 0; r < kQuad; ++r) rows[r] = load_blocks<kSpare>(from + r * row_bytes, row_bytes);
    turn_squares(rows, words);
  }
  /// The elements of word `word`: a lane for each row.
  HWY_INLINE void elements(int word, Vector (&to)[kInWord<T>]) const {
    widen(words[word], to, static_cast<const T*>(nullptr));
  }
};

#if HWY_TARGET == HWY_AVX2
// f16 is widened as it is loaded: of a register it costs twice as much, and the halves of turned words lie apart.
template <> struct Turned<Float16> {
  Vector all[kInQuad<Float16>];

  template <bool kSpare = true> HWY_INLINE void load(const std::byte* from, int64_t row_bytes) {
    Vector low[kQuad], high[kQuad];  // the first and the last four rows, turned within the blocks
    turn_rows(from, row_bytes, low);
    turn_rows(from + kQuad * row_bytes, row_bytes, high);
    for (int e = 0; e < kQuad; ++e) {
      all[e] = hn::ConcatLowerLower(kFloats, high[e], low[e]);
      all[kQuad + e] = hn::ConcatUpperUpper(kFloats, high[e], low[e]);
    }
  }
  HWY_INLINE void elements(int word, Vector (&to)[2]) const {
    to[0] = all[2 * word];
    to[1] = all[2 * word + 1];
  }

 private:
  static HWY_INLINE void turn_rows(const std::byte* from, int64_t row_bytes, Vector (&to)[kQuad]) {
    Vector rows[kQuad];
    for (int r = 0; r < kQuad; ++r)
      rows[r] = cpu::HWY_NAMESPACE::load(reinterpret_cast<const Float16*>(from + r * row_bytes));
    turn_squares(rows, to);
  }
};
#endif

/// The same pointer, of which the compiler knows nothing: it would keep one for each row, and the rows are many.
HWY_INLINE const std::byte* forgotten(const std::byte* p) {
  asm("" : "+r"(p));
  return p;
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
