// Products of a wide matrix and few rows, of which one is turned onto the stack for the tile of tile-inl.h. AVX2's 16
// registers hold no turned square beside 12 sums: registers would be spilt, and multipliers wait for loads.
//
//   panels       9 to 12 thin rows of 16-bit elements: a panel of the wide operand is turned, a lane is a row of it
//   few_columns  as many thin rows as a vector has lanes: these are turned, and elements of the wide one broadcast
//
// Included once per SIMD target by files that use foreach_target.h, hence the toggled guard.
#if defined(TESSERA_CPU_THIN_PANEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_THIN_PANEL_INL_H_
#undef TESSERA_CPU_THIN_PANEL_INL_H_
#else
#define TESSERA_CPU_THIN_PANEL_INL_H_
#endif

#include "kernels/cpu/thin-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

constexpr int64_t kPanelRows = kTileCols * kLanes;
// Elements of a row that a panel holds: short ones, between which the fetches of the next have their time.
constexpr int64_t kPanelElements = 32;

/// panel[e · width + r] = element e of row r, for e < elements. Lanes of rows up to the next multiple of kLanes that do
/// not exist hold zeros. ahead: what is fetched meanwhile, as many bytes.
template <class T>
HWY_INLINE void turn_panel(const T* wide, int64_t stride, int64_t rows, int64_t elements, int64_t width,
                           const std::byte* ahead, float* panel) {
  constexpr int64_t kSize = static_cast<int64_t>(sizeof(T));
  for (int64_t first = 0; first < rows; first += kLanes) {
    const auto* from = reinterpret_cast<const std::byte*>(wide + first * stride);
    const int64_t row_bytes = stride * kSize;
    for (int64_t e = 0; e < elements; e += kInQuad<T>) {
      for (int64_t b = 0; b < kLanes * kQuadBytes; b += kLine) hwy::Prefetch(ahead + b);
      ahead += kLanes * kQuadBytes;
      Turned<T> turned;
      if (rows - first >= kLanes && elements - e >= kInQuad<T>) {
        turned.load(from + e * kSize, row_bytes);
      } else {
        HWY_ALIGN std::byte copy[kLanes * kQuadBytes] = {};
        for (int64_t r = 0; r < std::min<int64_t>(kLanes, rows - first); ++r)
          std::memcpy(copy + r * kQuadBytes, from + e * kSize + r * row_bytes,
                      static_cast<size_t>(std::min<int64_t>(kInQuad<T>, elements - e) * kSize));
        turned.load(copy, kQuadBytes);
      }
#pragma GCC unroll 4
      for (int word = 0; word < kQuad; ++word) {
        Vector w[kInWord<T>];
        turned.elements(word, w);
#pragma GCC unroll 2
        for (int i = 0; i < kInWord<T>; ++i)
          hn::Store(w[i], kFloats, panel + (e + word * kInWord<T> + i) * width + first);
      }
    }
  }
}

/// thin_product of one block of k, from `begin` on, and at most kPanelRows rows of the wide operand.
template <class T>
void panel_block(const ThinArgs& t, const T* wide, int64_t rows, float* c, int64_t begin, int64_t end,
                 const std::byte*& ahead) {
  HWY_ALIGN float panel[kPanelElements * kPanelRows], sums[kMostThin * kPanelRows];
  const auto each_place = [&](auto&& visit) {
    for (int64_t i = 0; i < t.thin_rows; ++i)
      for (int64_t r = 0; r < rows; r += kLanes)
        visit(sums + i * kPanelRows + r,
              SumsPlace{c + i * t.thin_step + r * t.wide_step, t.wide_step, std::min<int64_t>(kLanes, rows - r)});
  };
  const bool goes_on = t.chain && t.beta != 0;
  if (goes_on) each_place([](float* s, const SumsPlace& place) HWY_ATTR { hn::Store(place.load(), kFloats, s); });
  const int64_t lanes = parts_of(rows, kLanes) * kLanes;
  for (int64_t k = begin; k < end; k += kPanelElements) {
    const int64_t elements = std::min(kPanelElements, end - k);
    turn_panel(wide + k, t.wide_stride, rows, elements, kPanelRows, ahead, panel);
    ahead += rows * elements * static_cast<int64_t>(sizeof(T));
    product({t.thin_rows, lanes, elements, t.thin + k, t.thin_stride, 1, panel, kPanelRows, sums, kPanelRows, 1,
             goes_on || k > begin ? 1.0f : 0.0f, true});
  }
  each_place([&](const float* s, const SumsPlace& place) HWY_ATTR { finish(t, begin, hn::Load(kFloats, s), place); });
}

template <class T> void panels(const ThinArgs& t) {
  const T* wide = static_cast<const T*>(t.wide);
  const int64_t length = t.chain ? t.k : kBlockK;
  for (int64_t first = 0; first < t.wide_rows; first += kPanelRows) {
    const int64_t rows = std::min(kPanelRows, t.wide_rows - first);
    const auto* ahead = reinterpret_cast<const std::byte*>(wide + (first + rows) * t.wide_stride);
    for (int64_t begin = 0; begin < t.k; begin += length)
      panel_block(t, wide + first * t.wide_stride, rows, t.c + first * t.wide_step, begin,
                  std::min(t.k, begin + length), ahead);
  }
}

/// The product of kLanes thin rows, in f32, with c[r · wide_step + i]. Eight sums are what the multipliers ask for.
HWY_INLINE void few_columns(const ThinArgs& t) {
  constexpr int kRows = 8;
  HWY_ALIGN float panel[kBlockK * kLanes];
  const auto* wide = static_cast<const float*>(t.wide);
  for (int64_t begin = 0; begin < t.k; begin += kBlockK) {
    const int64_t elements = std::min(kBlockK, t.k - begin);
    turn_panel(t.thin + begin, t.thin_stride, t.thin_rows, elements, kLanes, reinterpret_cast<const std::byte*>(wide),
               panel);
    const TileArgs tiles{t.wide_rows, t.thin_rows, elements,    wide + begin, t.wide_stride,           1,      panel,
                         kLanes,      t.c,         t.wide_step, t.alpha,      begin == 0 ? t.beta : 1, t.chain};
    int64_t i = 0;
    for (; i + kRows <= t.wide_rows; i += kRows)
      tile<kRows, 1, false>(tiles, tiles.a + i * tiles.row_step, i, 0, kLanes);
    if (i == t.wide_rows) continue;
    TileArgs rest = tiles;
    rest.m -= i;
    rest.a += i * tiles.row_step;
    rest.c += i * tiles.ldc;
    product(rest);
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
