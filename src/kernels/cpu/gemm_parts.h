#pragma once
// What the parts of the cpu gemm offer each other and fold_gemm. Both kernels keep gemm's contract; gemm.cpp chooses.

#include "kernels/gemm.h"

namespace tessera::cpu {

/// K of op(A) [M, K].
inline int64_t inner_size(const GemmArgs& g) { return g.a.shape[g.a_transpose == Transpose::yes ? 0 : 1]; }

/// Below this many multiply-adds starting the threads (some microseconds) costs more than it saves.
constexpr int64_t kSmallWork = 64 * 1024;

/// Units that hold `count`.
inline int64_t parts_of(int64_t count, int64_t unit) { return (count + unit - 1) / unit; }

/// Which of the two gemm takes, by speed alone: skinny_gemm or packed_gemm. Reads no element.
bool is_skinny(const GemmArgs&);

/// The most rows of the thin operand of skinny_gemm where B is stored transposed.
constexpr int64_t kMostThin = 12;

/// As much as this to sum is little: C is most of what such a product moves.
constexpr int64_t kShortSum = 64;

/// B is packed into strips first: for anything large. Takes packed_scratch_bytes.
void packed_gemm(const Context&, const GemmArgs&);
int64_t packed_scratch_bytes(int threads);

// 384 · 48 · 4 bytes = 74 KB a strip. Blocks of 256 cost 3 % (C is read and written more often).
constexpr int64_t kBlockK = 384;
constexpr int64_t kStrip = 48;  // whole vectors of every width, whole tiles of 3 · 16 and 2 · (3 · 8) columns
constexpr int64_t kMaxStrips = 16;
constexpr int64_t kPanelFloats = kBlockK * kStrip * kMaxStrips;

/// A task: rows [m_begin, m_end) and columns [n_begin, n_end). More than kMaxStrips strips are taken in several goes.
struct PackedTask {
  int64_t m_begin, m_end, n_begin, n_end;
};

/// Tasks as a grid of equal parts, a multiple of the number of threads where there are enough strips, and rows shared
/// out too where there are not, or where A is stored turned and copied by each part.
struct PackedGrid {
  int64_t m, n, row_parts, col_parts;
  PackedGrid(int64_t m, int64_t n, int64_t k, int64_t threads, Transpose a_transpose = Transpose::no);
  int64_t tasks() const { return row_parts * col_parts; }
  PackedTask task(int64_t i) const;
};

/// A task of packed_gemm on the calling thread. An element's sum is cut into blocks of kBlockK of k: calls for one
/// block after the other, with beta = 1 from the second on, give the bits of one call. panels: kPanelFloats.
void packed_part(const GemmArgs&, const PackedTask&, float* panels);

/// B is read where it lies, no scratch: for a small M, N or K. Either A is stored as it is, B transposed, and M or N at
/// most kMostThin (with N: B in f32), or B is stored as it is in f32.
void skinny_gemm(const Context&, const GemmArgs&);

/// skinny_gemm on the calling thread.
void skinny_part(const GemmArgs&);

}  // namespace tessera::cpu
