#pragma once
// Where the entries of runs lie: what every backend and the checks know of their numbers.

#include "kernels/paged_attention.h"

namespace tessera {

/// Entries of key-value head h of a run.
inline int64_t length_of(const PagedAttentionArgs& args, const KeyRun& run, int64_t h) {
  return args.lengths[static_cast<size_t>(run.length + h * run.length_step)];
}

/// The page that holds entries [number · B, (number + 1) · B) of key-value head h of a run.
inline int64_t page_of(const PagedAttentionArgs& args, const KeyRun& run, int64_t h, int64_t number) {
  return args.tables[static_cast<size_t>(run.table + h * run.head_step + number)] +
         run.page_step * (args.page_base + h);
}

/// Where a visit ends in key-value head h: at its own end, or at the last entry of its runs.
inline int64_t end_of(const PagedAttentionArgs& args, const AttentionVisit& visit, int64_t h) {
  int64_t entries = 0;
  for (int32_t r = visit.run_begin; r < visit.run_end && entries < visit.end; ++r)
    entries += length_of(args, args.runs[static_cast<size_t>(r)], h);
  return entries < visit.end ? entries : visit.end;
}

/// Bytes of k, v and their scales that are read when each visit reads its entries once.
inline int64_t bytes_read(const PagedAttentionArgs& args) {
  const KeyValuePages& pages = args.pages;
  const int64_t scales = pages.k.dtype == DType::i8 ? 2 * size_of(DType::f32) : 0;
  int64_t entries = 0;
  for (const AttentionVisit& visit : args.visits) {
    if (visit.row_begin == visit.row_end) continue;
    for (int64_t h = 0; h < args.kv_heads; ++h) {
      const int64_t end = end_of(args, visit, h);
      if (end > visit.begin) entries += end - visit.begin;
    }
  }
  return entries * (2 * args.head_dim * size_of(pages.k.dtype) + scales);
}

/// Some neighbouring entries of one page.
struct PagePiece {
  int64_t page, slot;    // the page, and its first entry that is meant
  int64_t first, count;  // number of that entry in the visit, and of entries
  int64_t position;      // of that entry, of pages without positions
};

/// Calls f(PagePiece) for entries [begin, end) of a visit in key-value head h, in their order.
/// @param end  at most end_of the visit
template <class F>
void for_pieces(const PagedAttentionArgs& args, const AttentionVisit& visit, int64_t h, int64_t begin, int64_t end,
                F&& f) {
  const int64_t room = args.pages.page_tokens;
  int64_t run_first = 0;  // the number of the run's first entry
  for (int32_t r = visit.run_begin; r < visit.run_end && run_first < end; ++r) {
    const KeyRun& run = args.runs[static_cast<size_t>(r)];
    const int64_t run_last = run_first + length_of(args, run, h);
    for (int64_t e = begin > run_first ? begin : run_first; e < (run_last < end ? run_last : end);) {
      const int64_t i = e - run_first, slot = i % room;
      int64_t count = room - slot;
      if (count > run_last - e) count = run_last - e;
      if (count > end - e) count = end - e;
      f(PagePiece{page_of(args, run, h, i / room), slot, e, count, run.first + i});
      e += count;
    }
    run_first = run_last;
  }
}

}  // namespace tessera
