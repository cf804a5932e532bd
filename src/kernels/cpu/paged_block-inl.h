// A block of entries of some pages as the CPU's attention reads it: positions, keys turned so that an entry is a lane,
// values in rows of f32. What lies in pages of f32 is read in place where that is quicker.
//
// Included once per SIMD target, behind attention_panel-inl.h.
#if defined(TESSERA_KERNELS_CPU_PAGED_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_PAGED_BLOCK_INL_H_
#undef TESSERA_KERNELS_CPU_PAGED_BLOCK_INL_H_
#else
#define TESSERA_KERNELS_CPU_PAGED_BLOCK_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "kernels/cpu/attention_panel-inl.h"
#include "kernels/cpu/paged_scratch.h"
#include "kernels/paged_runs.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

/// Neighbouring keys or values: those of entries [first, first + count) of a block.
struct RowPiece {
  const float* data;
  int64_t first, count;
};
struct BlockRows {
  RowPiece of[kKeyBlock];
  int count = 0;
  const RowPiece* begin() const { return of; }
  const RowPiece* end() const { return of + count; }
};

/// At most kKeyBlock entries of a visit in one key-value head.
struct EntryBlock {
  PagePiece pieces[kKeyBlock];
  BlockRows keys, values;
  int64_t entries = 0;
  int piece_count = 0;
  int32_t lowest = std::numeric_limits<int32_t>::max();  // of the positions
  int32_t highest = std::numeric_limits<int32_t>::min();
  bool biased = false, is_turned = false;
};

/// Positions and biases of entries [begin, end) of a visit; nothing of their keys is read yet.
HWY_INLINE void find_entries(const PagedAttentionArgs& args, const AttentionVisit& visit, int64_t kv_head,
                             int64_t begin, int64_t end, const PagedScratch& s, EntryBlock& b) {
  const KeyValuePages& pages = args.pages;
  b.biased = !pages.bias.empty();
  for_pieces(args, visit, kv_head, begin, end, [&](const PagePiece& piece) HWY_ATTR {
    int32_t* to = s.position + b.entries;
    for (int64_t i = 0; i < piece.count; ++i)
      to[i] = pages.position.empty() ? static_cast<int32_t>(piece.position + i)
                                     : pages.position.row<int32_t>(piece.page)[piece.slot + i];
    for (int64_t i = 0; i < piece.count; ++i) {
      b.lowest = std::min(b.lowest, to[i]);
      b.highest = std::max(b.highest, to[i]);
    }
    if (b.biased) std::copy_n(pages.bias.row<float>(piece.page) + piece.slot, piece.count, s.bias + b.entries);
    b.pieces[b.piece_count++] = piece;
    b.entries += piece.count;
  });
}

template <class T> HWY_INLINE void widen(const T* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += kLanes) store_some(load_some(from + i, count - i), to + i, count - i);
}

/// scale · code
static HWY_NOINLINE void widen_codes(const int8_t* from, float scale, int64_t count, float* to) {
  const hn::Rebind<int8_t, Floats> bytes;
  const hn::Rebind<int32_t, Floats> words;
  const Vector factor = hn::Set(kFloats, scale);
  for (int64_t i = 0; i < count; i += kLanes) {
    int8_t codes[kLanes] = {};
    std::memcpy(codes, from + i, static_cast<size_t>(std::min<int64_t>(kLanes, count - i)));
    const Vector code = hn::ConvertTo(kFloats, hn::PromoteTo(words, hn::LoadU(bytes, codes)));
    store_some(hn::Mul(factor, code), to + i, count - i);
  }
}

/// Rows of a piece of k or v in f32.
static HWY_NOINLINE void widen_piece(const ConstView& values, const ConstView& scales, const PagePiece& piece,
                                     int64_t dim, float* to) {
  const int64_t first = piece.slot * dim, count = piece.count * dim;
  switch (values.dtype) {
    case DType::i8:
      for (int64_t i = 0; i < piece.count; ++i)
        widen_codes(values.row<int8_t>(piece.page) + first + i * dim, scales.row<float>(piece.page)[piece.slot + i],
                    dim, to + i * dim);
      return;
    case DType::bf16:
      return widen(values.row<BFloat16>(piece.page) + first, count, to);
    case DType::f16:
      return widen(values.row<Float16>(piece.page) + first, count, to);
    default:
      std::copy_n(values.row<float>(piece.page) + first, count, to);
  }
}

static HWY_NOINLINE void widen_block(const ConstView& values, const ConstView& scales, const EntryBlock& b, int64_t dim,
                                     float* to) {
  for (int p = 0; p < b.piece_count; ++p) {
    widen_piece(values, scales, b.pieces[p], dim, to);
    to += b.pieces[p].count * dim;
  }
}

/// Keys or values of a block: where they lie in pages of f32 if `in_place`, else in a copy.
HWY_INLINE void find_rows(const ConstView& from, const ConstView& scales, const EntryBlock& b, int64_t dim,
                          bool in_place, float* copy, BlockRows& rows) {
  if (from.dtype != DType::f32 || !in_place) {
    widen_block(from, scales, b, dim, copy);
    rows.of[0] = {copy, 0, b.entries};
    rows.count = 1;
    return;
  }
  rows.count = b.piece_count;
  int64_t first = 0;
  for (int p = 0; p < b.piece_count; ++p) {
    const PagePiece& piece = b.pieces[p];
    rows.of[p] = {from.row<float>(piece.page) + piece.slot * dim, first, piece.count};
    first += piece.count;
  }
}

// With so many queries or fewer a block is read once: nothing of it is copied or turned for later.
constexpr int64_t kFewQueries = 4;
// Pieces from which it pays to go on in place: keys are turned in whole vectors, and a product with values takes up its
// sums again at each piece.
constexpr int64_t kWorthTurning = 16, kWorthResuming = 64;

/// Finds keys and values of a block, and turns the keys unless the queries are few.
HWY_INLINE void load_entries(const PagedAttentionArgs& args, int64_t queries, const PagedScratch& s, EntryBlock& b) {
  const KeyValuePages& pages = args.pages;
  const int64_t dim = args.head_dim;
  const bool few = queries <= kFewQueries;
  find_rows(pages.k, pages.k_scale, b, dim, few || b.entries >= b.piece_count * kWorthTurning, s.k, b.keys);
  find_rows(pages.v, pages.v_scale, b, dim, few || b.entries >= b.piece_count * kWorthResuming, s.v, b.values);
  b.is_turned = !few;
  for (const RowPiece* keys = b.keys.begin(); keys != b.keys.end() && b.is_turned; ++keys)
    transpose(keys->data, dim, keys->count, dim, 1, s.turned_k + keys->first, kScoreStride, keys->count);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
