#include "kernels/paged_attention.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/checks.h"
#include "kernels/paged_runs.h"

namespace tessera {
namespace {

/// Queries of a tile: rows times query heads of a key-value head. Their state fits the second-level cache; a multiple
/// of the 48 that a panel of any instruction set divides.
constexpr int64_t kTileQueries = 192, kUnitQueries = 48;

void check_operands(const Arguments& check, const PagedAttentionArgs& args) {
  const int64_t rows = args.q.shape[0], width = args.heads * args.head_dim;
  TS_CHECK(args.heads > 0 && args.kv_heads > 0 && args.head_dim > 0 && args.heads % args.kv_heads == 0,
           "paged_attention: {} heads cannot share {} key-value heads", args.heads, args.kv_heads);
  TS_CHECK(args.window >= 0, "paged_attention: a window of {} keys", args.window);
  check.matrix("q", args.q, rows, width);
  check.matrix("out", args.out, rows, width);
  if (!args.lse.empty()) check.matrix("lse", args.lse, rows, args.heads);
  check.no_alias("out", args.out, "q", args.q);
  check.pages(args.pages, args.head_dim);
  check.place("row_position", args.row_position);
  check.place("row_bound", args.row_bound);
  check.place("tables", args.tables);
  check.place("lengths", args.lengths);
  check.place("runs", args.runs);
  check.place("visits", args.visits);
  check.place("tiles", args.tiles);
  check.place("tile_visits", args.tile_visits);
  if (!args.bytes.empty()) check.integers("bytes", args.bytes, DType::i64, 1);
}

/// Every page of the run lies in the pool, every number of its in its array.
void check_run(const PagedAttentionArgs& args, int64_t r) {
  const KeyRun& run = args.runs.host()[static_cast<size_t>(r)];
  const auto tables = args.tables.host(), lengths = args.lengths.host();
  const auto numbers = static_cast<int64_t>(tables.size()), room = args.pages.page_tokens;
  for (int64_t h = 0; h < args.kv_heads; ++h) {
    const int64_t at = run.length + h * run.length_step;
    TS_CHECK(0 <= at && at < static_cast<int64_t>(lengths.size()),
             "paged_attention: run {} has the length of head {} at {} of {}", r, h, at, lengths.size());
    const int64_t length = lengths[static_cast<size_t>(at)];
    TS_CHECK(length >= 0, "paged_attention: run {} has {} entries in head {}", r, length, h);
    const int64_t first = run.table + h * run.head_step, last = first + (length + room - 1) / room;
    TS_CHECK(0 <= first && last <= numbers, "paged_attention: run {} has the pages of head {} at {} to {} of {}", r, h,
             first, last, numbers);
    for (int64_t i = first; i < last; ++i) {
      const int64_t page = tables[static_cast<size_t>(i)] + run.page_step * (args.page_base + h);
      TS_CHECK(0 <= page && page < args.pages.count(),
               "paged_attention: run {} has page {} in head {}, expected 0 to {}", r, page, h, args.pages.count() - 1);
    }
  }
}

void check_visits(const PagedAttentionArgs& args) {
  const int64_t rows = args.q.shape[0], runs = static_cast<int64_t>(args.runs.size());
  const auto visits = args.visits.host();
  for (size_t i = 0; i < visits.size(); ++i) {
    const AttentionVisit& v = visits[i];
    TS_CHECK(0 <= v.row_begin && v.row_begin <= v.row_end && v.row_end <= rows,
             "paged_attention: visit {} is of rows {} to {} of {}", i, v.row_begin, v.row_end, rows);
    TS_CHECK(0 <= v.begin && v.begin <= v.end, "paged_attention: visit {} is of entries {} to {}", i, v.begin, v.end);
    TS_CHECK(0 <= v.run_begin && v.run_begin <= v.run_end && v.run_end <= runs,
             "paged_attention: visit {} is of runs {} to {} of {}", i, v.run_begin, v.run_end, runs);
  }
}

/// Tiles cover the rows one after the other, and each names its visits in ascending order.
void check_tiles(const PagedAttentionArgs& args) {
  const auto visits = args.visits.host();
  const auto numbers = args.tile_visits.host();
  const int64_t most = max_tile_rows(args.heads / args.kv_heads);
  int64_t row = 0;
  for (const AttentionTile& tile : args.tiles.host()) {
    TS_CHECK(tile.row_begin == row && tile.row_begin <= tile.row_end && tile.row_end - row <= most,
             "paged_attention: a tile of rows {} to {} behind row {}, expected at most {} rows", tile.row_begin,
             tile.row_end, row, most);
    TS_CHECK(0 <= tile.visit_begin && tile.visit_begin <= tile.visit_end &&
                 tile.visit_end <= static_cast<int64_t>(numbers.size()),
             "paged_attention: a tile of visits {} to {} of {}", tile.visit_begin, tile.visit_end, numbers.size());
    int32_t begin = 0;
    for (int32_t i = tile.visit_begin; i < tile.visit_end; ++i) {
      const int32_t visit = numbers[static_cast<size_t>(i)];
      TS_CHECK(0 <= visit && visit < static_cast<int64_t>(visits.size()), "paged_attention: a tile has visit {} of {}",
               visit, visits.size());
      TS_CHECK(visits[static_cast<size_t>(visit)].begin >= begin,
               "paged_attention: the visits of rows {} to {} descend", tile.row_begin, tile.row_end);
      begin = visits[static_cast<size_t>(visit)].begin;
    }
    row = tile.row_end;
  }
  TS_CHECK(row == args.q.shape[0], "paged_attention: the tiles end at row {} of {}", row, args.q.shape[0]);
}

void check_mass(const Arguments& check, const Context& ctx, const PagedAttentionArgs& args) {
  if (args.mass.empty()) return;
  const int64_t room = args.mass.shape.count();
  check.vector("mass", args.mass, room);
  check.place("mass_offset", args.mass_offset);
  check.place("mass_rows", args.mass_rows);
  check.count("mass_offset", static_cast<int64_t>(args.mass_offset.size()),
              static_cast<int64_t>(args.runs.size()) * args.kv_heads);
  if (!args.mass_rows.empty()) check.count("mass_rows", static_cast<int64_t>(args.mass_rows.size()), args.q.shape[0]);
  if (is_counting(ctx)) return;
  const auto offsets = args.mass_offset.host();
  for (size_t i = 0; i < offsets.size(); ++i) {
    const KeyRun& run = args.runs.host()[i / static_cast<size_t>(args.kv_heads)];
    const int64_t h = static_cast<int64_t>(i) % args.kv_heads;
    const int64_t length = args.lengths.host()[static_cast<size_t>(run.length + h * run.length_step)];
    TS_CHECK(offsets[i] == -1 || (0 <= offsets[i] && offsets[i] + length <= room),
             "paged_attention: mass_offset[{}] is {}, and {} entries do not fit behind it in {}", i, offsets[i], length,
             room);
  }
}

}  // namespace

void paged_attention(const Context& ctx, const PagedAttentionArgs& args) {
  const Arguments check(ctx, "paged_attention", args.q.dtype);
  check_operands(check, args);
  check.count("row_position", static_cast<int64_t>(args.row_position.size()), args.q.shape[0]);
  check.count("row_bound", static_cast<int64_t>(args.row_bound.size()), args.q.shape[0]);
  if (!is_counting(ctx)) {
    for (size_t r = 0; r < args.runs.size(); ++r) check_run(args, static_cast<int64_t>(r));
    check_visits(args);
    check_tiles(args);
  }
  check_mass(check, ctx, args);
  ctx.kernels.paged_attention(ctx, args);
}

void merge_attention(const Context& ctx, ConstView other_out, ConstView other_lse, int64_t head_dim, TensorView out,
                     TensorView lse) {
  const Arguments check(ctx, "merge_attention", out.dtype);
  const int64_t rows = lse.shape[0], heads = lse.shape[1];
  check.matrix("other_out", other_out, rows, heads * head_dim);
  check.matrix("other_lse", other_lse, rows, heads);
  check.matrix("out", out, rows, heads * head_dim);
  check.matrix("lse", lse, rows, heads);
  check.no_alias("out", out, "other_out", other_out);
  check.no_alias("lse", lse, "other_lse", other_lse);
  ctx.kernels.merge_attention(ctx, other_out, other_lse, head_dim, out, lse);
}

int64_t max_tile_rows(int64_t heads_per_kv_head) { return std::max<int64_t>(1, kTileQueries / heads_per_kv_head); }

PagedPlan plan_tiles(std::span<const AttentionVisit> visits, int64_t rows, int64_t heads_per_kv_head, int64_t kv_heads,
                     int threads) {
  // Large tiles read keys seldom, many of them keep all threads busy to the end.
  const int64_t unit = std::max<int64_t>(1, kUnitQueries / heads_per_kv_head);
  int64_t tile_rows = max_tile_rows(heads_per_kv_head) / unit * unit;
  const auto count_of = [&](int64_t size) { return (rows + size - 1) / size; };
  while (tile_rows > unit && count_of(tile_rows) * kv_heads < 2 * threads)
    tile_rows = (tile_rows / unit + 1) / 2 * unit;
  PagedPlan plan;
  const auto tiles = static_cast<size_t>(count_of(tile_rows));
  std::vector<std::vector<int32_t>> of_tile(tiles);
  for (size_t i = 0; i < visits.size(); ++i) {
    const AttentionVisit& v = visits[i];
    TS_CHECK(0 <= v.row_begin && v.row_end <= rows, "plan_tiles: visit {} is of rows {} to {} of {}", i, v.row_begin,
             v.row_end, rows);
    if (v.row_begin >= v.row_end || v.begin >= v.end) continue;
    for (int64_t t = v.row_begin / tile_rows; t * tile_rows < v.row_end; ++t)
      of_tile[static_cast<size_t>(t)].push_back(static_cast<int32_t>(i));
  }
  for (size_t t = 0; t < tiles; ++t) {
    const auto row = static_cast<int64_t>(t) * tile_rows;
    const auto first = static_cast<int32_t>(plan.tile_visits.size());
    std::stable_sort(of_tile[t].begin(), of_tile[t].end(), [&](int32_t a, int32_t b) {
      return visits[static_cast<size_t>(a)].begin < visits[static_cast<size_t>(b)].begin;
    });
    plan.tile_visits.insert(plan.tile_visits.end(), of_tile[t].begin(), of_tile[t].end());
    plan.tiles.push_back({static_cast<int32_t>(row), static_cast<int32_t>(std::min(rows, row + tile_rows)), first,
                          static_cast<int32_t>(plan.tile_visits.size())});
  }
  return plan;
}

}  // namespace tessera
