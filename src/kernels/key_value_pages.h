#pragma once
// Pages of keys and values: where a cache keeps them, and how rows of a step come there.

#include "core/index_array.h"
#include "kernels/context.h"

namespace tessera {

/// Pages of a pool. A page has room for B = page_tokens entries of one layer and one key-value head; an entry is a key,
/// a value and what belongs to them. Rows of k and v may be strided. Views are empty where a pool has no such thing.
struct KeyValuePages {
  TensorView k, v;              // [pages, B · head_dim] f32, bf16, f16 or i8 (f64 where the backend computes in it)
  TensorView k_scale, v_scale;  // [pages, B] f32, with i8 alone: an element is scale · code
  TensorView position;          // [pages, B] i32; empty: entry i of a run stands at the run's first position + i
  TensorView bias;              // [pages, B] f32, added to the scaled scores; empty: none
  int64_t page_tokens = 0;      // B

  int64_t count() const { return k.shape[0]; }

  /// Calls v for every view.
  template <class Pages, class Visitor> static void visit(Pages& pages, Visitor&& v) {
    for_each_of(v, pages.k, pages.v, pages.k_scale, pages.v_scale, pages.position, pages.bias);
  }
};

/// Row t of k and v goes to entry[t] of pages page[t] + page_base + h, one page for each key-value head h.
///   f32, f64   as they are (f64 rounds to f32)
///   bf16, f16  rounded to nearest even
///   i8         scale = max|x| / 127 over the head's elements, code = clamp(rint(x / scale), −127, 127), in f32, ties
///              to even; of zeros alone scale and codes are 0. So |x − scale · code| <= scale / 2.
/// Positions are set where pages have them; biases are left as they are. No two rows may go to one entry.
struct WritePagesArgs {
  ConstView k, v;  // [rows, kv_heads · head_dim] compute dtype, rows may be strided
  KeyValuePages pages;
  int64_t page_base;  // layer · kv_heads
  int64_t kv_heads, head_dim;
  IndexArray<int32_t> page;      // [rows]; below 0: the row is not kept
  IndexArray<int32_t> entry;     // [rows]
  IndexArray<int32_t> position;  // [rows]; may be empty where pages have no positions
  /// [rows] i32, assigned: 0, or 1 + the first head with a number that the pages cannot hold: one that is not finite
  /// for i8, whose codes and scale are then 0, one that rounds to infinity for f16. NaN and infinities in f32, f64 and
  /// bf16 and NaN in f16 are kept as they are.
  TensorView fault;

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.k, args.v, args.pages, args.page, args.entry, args.position, args.fault);
  }
};
void write_pages(const Context&, const WritePagesArgs&);

}  // namespace tessera
