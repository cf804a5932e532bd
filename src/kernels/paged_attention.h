#pragma once
// Attention of a step's rows over paged keys and values that many of them share: each is read once for all rows that
// see it.
//
// Rows are ordered depth first along the tree of their prefixes, so that the rows below a node of the tree are
// neighbours:
//
//       root ─┬─ a ─┬─ tail of row 0         visit   rows    runs           entries
//             │     └─ tail of row 1           0     [0, 3)  root           [0, 128)
//             └─ tail of row 2                 1     [0, 2)  root, a        [128, 256)
//                                              2     [0, 1)  root, a, tail  [256, ...)
//                                              ...
//
// A visit reads its entries once for all of its rows. Runs of a visit lie end to end from the root on, so that an entry
// keeps its number whoever visits it, and blocks of 128 numbers are the same blocks for every plan.

#include <span>
#include <vector>

#include "core/index_array.h"
#include "kernels/context.h"
#include "kernels/key_value_pages.h"

namespace tessera {

/// Neighbouring entries: those of a node of the tree, or of a sequence's tail. Entry i of key-value head h is entry
/// i mod B of page  tables[table + h · head_step + i / B] + page_step · (page_base + h),  and the head has
/// lengths[length + h · length_step] entries. One number for all layers and heads: head_step 0, page_step 1; a row of
/// numbers for each head of this layer: page_step 0.
struct KeyRun {
  int32_t first;  // position of entry 0, of pages without positions
  int32_t head_step, page_step, length_step;
  int64_t table, length;  // places in tables and lengths
};

/// Rows [row_begin, row_end) read entries [begin, end) of runs [run_begin, run_end), counted from the first entry of
/// the first of these runs; an end behind a head's last entry stands for it.
struct AttentionVisit {
  int32_t row_begin, row_end;
  int32_t begin, end;
  int32_t run_begin, run_end;
};

/// Rows that one task takes, and the visits that touch them: tile_visits[visit_begin, visit_end), ascending by `begin`.
struct AttentionTile {
  int32_t row_begin, row_end;
  int32_t visit_begin, visit_end;
};

/// Grouped-query attention over pages: row t of query head h sees an entry of key-value head h / (heads / kv_heads)
/// among its visits if  position <= row_bound[t]  and, with a window W > 0,  position > row_position[t] − W.
///   score = scale · q·k + bias     out = softmax(score) v     lse = log Σ exp(score)
/// A row that sees nothing has out = 0 and lse = −∞.
///
/// Order of sums (f32): docs/determinism.md, "Attention", with entries by number. Blocks begin at multiples of 128
/// and, where a visit begins elsewhere, there; spans at multiples of 1,024. Over the same keys in the same order a row
/// has the bits of `attention`, however entries are cut into pages and runs, rows into tiles, and for any number of
/// threads. Entries behind a run's length are never read. Those of a visit that one of its rows sees and another does
/// not have to be finite: they add zeros to the other.
struct PagedAttentionArgs {
  ConstView q;          // [rows, heads · head_dim] compute dtype, rows may be strided
  TensorView out;       // the same; may not alias q
  TensorView lse;       // [rows, heads] compute dtype; empty to skip
  KeyValuePages pages;  // i8, bf16 and f16 are widened to f32
  int64_t page_base;    // layer · kv_heads
  int64_t heads, kv_heads, head_dim;
  double scale;
  int64_t window = 0;                           // 0: none
  IndexArray<int32_t> row_position, row_bound;  // [rows]
  IndexArray<int32_t> tables, lengths;
  IndexArray<KeyRun> runs;
  IndexArray<AttentionVisit> visits;  // no row visits an entry twice, or begins a visit before its last one's end
  IndexArray<AttentionTile> tiles;    // all rows, in order
  IndexArray<int32_t> tile_visits;

  /// Mass of the entries, if asked for: for entry i of run r and key-value head h
  ///   mass[mass_offset[r · kv_heads + h] + i] = 1/G Σ over the rows that count, and their G query heads, of
  ///   exp(score − lse)
  /// assigned, for all entries that the head has. Summed in f32 in the order of the visits, rows ascending, in blocks
  /// of 64 rows.
  TensorView mass;                  // flat f32; empty: not asked for
  IndexArray<int64_t> mass_offset;  // [runs · kv_heads]; −1: this run and head are not asked for
  IndexArray<int32_t> mass_rows;    // [rows]: 1, or 0 for a row that does not count; empty: all count

  /// [1] i64, += bytes of k, v and their scales that are read: those of each visit's entries once a key-value head.
  /// Empty to skip.
  TensorView bytes;

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.q, args.out, args.lse, args.pages, args.row_position, args.row_bound, args.tables, args.lengths,
                args.runs, args.visits, args.tiles, args.tile_visits, args.mass, args.mass_offset, args.mass_rows,
                args.bytes);
  }
};
void paged_attention(const Context&, const PagedAttentionArgs&);

/// (out, lse) <- attention over the keys of both. With M = max(lse, lse'), w = e^(lse − M), w' = e^(lse' − M), i = 1 /
/// (w + w'):  out = fma(w' · i, out', (w · i) · out),  lse = M + log(w + w').
/// A side with lse = −∞ saw nothing and changes nothing, whatever its out holds.
/// @param other_out, out  [rows, heads · head_dim] compute dtype, rows may be strided
/// @param other_lse, lse  [rows, heads] compute dtype
void merge_attention(const Context&, ConstView other_out, ConstView other_lse, int64_t head_dim, TensorView out,
                     TensorView lse);

/// The largest number of rows of a tile.
int64_t max_tile_rows(int64_t heads_per_kv_head);

/// Tiles for a step's visits, made once and used by every layer.
struct PagedPlan {
  std::vector<AttentionTile> tiles;
  std::vector<int32_t> tile_visits;
};
/// Tiles as large as their rows allow, and so many that the threads are busy. Takes time in proportion to the visits
/// and the tiles that each of them touches.
/// @param rows  of the step: the tiles cover them all
PagedPlan plan_tiles(std::span<const AttentionVisit>, int64_t rows, int64_t heads_per_kv_head, int64_t kv_heads,
                     int threads);

}  // namespace tessera
