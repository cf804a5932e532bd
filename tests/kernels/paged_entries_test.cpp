// What a policy makes of a cache: heads of unlike lengths, entries out of order, biases, masses. Beside plain loops
// over the entries as they were before they came to pages; all that is on no list is NaN.

#include <numeric>

#include "kernels/harness.h"
#include "kernels/key_value_pages.h"
#include "kernels/paged_attention.h"

namespace tessera::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Entry {
  std::vector<float> k, v;
  int32_t position;
  float bias;
};

struct Options {
  DType stored = DType::f32;
  bool positions = true, biases = true;
  int64_t window = 0;
};

/// Three runs, of which each head has entries of its own; rows in two visits of them and of one more.
struct Ragged {
  static constexpr int64_t kHeads = 6, kKvHeads = 2, kDim = 20, kRows = 70, kPageTokens = 16, kPages = 200;
  Options options;
  std::vector<Entry> entries[3][kKvHeads];
  Tensor k, v, k_scale, v_scale, position, bias;
  std::vector<int32_t> tables, lengths, row_position, row_bound, mass_rows;
  std::vector<KeyRun> runs;
  std::vector<AttentionVisit> visits = {
      {0, kRows, 0, 384, 0, 1}, {0, 64, 384, 5000, 0, 2}, {64, kRows, 384, 800, 2, 4}};
  std::vector<int64_t> mass_offset;
  Matrix q = Matrix::random(kRows, kHeads* kDim, DType::f32, 11, 2);

  Ragged(const Options& o, uint64_t seed)
      : options(o),
        k({kPages, kPageTokens * kDim}, o.stored),
        v({kPages, kPageTokens * kDim}, o.stored),
        k_scale({kPages, kPageTokens}, DType::f32),
        v_scale({kPages, kPageTokens}, DType::f32),
        position({kPages, kPageTokens}, DType::i32),
        bias({kPages, kPageTokens}, DType::f32) {
    for (const Tensor* x : {&k_scale, &v_scale, &bias})
      for (int64_t i = 0; i < x->shape().count(); ++i) set_element(*x, i, kNan);
    for (const Tensor* x : {&k, &v})
      for (int64_t i = 0; o.stored != DType::i8 && i < x->shape().count(); ++i) set_element(*x, i, kNan);
    const RandomStream stream(seed, 4);
    uint64_t at = 0;
    const auto draw = [&](int64_t n) { return static_cast<int64_t>(stream.uniform(at++) * static_cast<double>(n)); };
    for (int64_t row = 0; row < kRows; ++row) {
      row_position.push_back(static_cast<int32_t>(draw(900)));
      row_bound.push_back(row_position.back() - static_cast<int32_t>(draw(2) * draw(40)));
      mass_rows.push_back(static_cast<int32_t>(draw(3) > 0));
    }
    std::vector<int32_t> free(kPages);
    std::iota(free.begin(), free.end(), 0);
    for (size_t i = free.size(); i-- > 1;)
      std::swap(free[i], free[static_cast<size_t>(draw(static_cast<int64_t>(i) + 1))]);
    for (int64_t r = 0; r < 3; ++r) add_run(r, draw, free);
    runs.push_back(runs[0]);
    std::swap(runs[2], runs[3]);  // 0, 1, 0, 2: the first run has rows of two visits' lists
    int64_t offset = 3;
    for (const KeyRun& run : runs)
      for (int64_t h = 0; h < kKvHeads; ++h) {
        mass_offset.push_back(draw(5) == 0 ? -1 : offset);
        offset += lengths[static_cast<size_t>(run.length + h)] + 2;
      }
  }
  /// Runs are 0, 1, 0, 2 of those that were made.
  static int64_t made(int64_t run) { return run == 1 ? 1 : run == 3 ? 2 : 0; }
  int64_t mass_room() const { return 4000; }

  template <class Draw> void add_run(int64_t r, Draw& draw, std::vector<int32_t>& free) {
    const int64_t most = r == 0 ? 410 : 260, numbers = (most + kPageTokens - 1) / kPageTokens;
    runs.push_back({.first = static_cast<int32_t>(r == 0 ? 0 : 410),
                    .head_step = static_cast<int32_t>(numbers),
                    .page_step = 0,
                    .length_step = 1,
                    .table = static_cast<int64_t>(tables.size()),
                    .length = static_cast<int64_t>(lengths.size())});
    for (int64_t h = 0; h < kKvHeads; ++h) {
      const int64_t length = options.positions ? most - draw(150) : most;
      lengths.push_back(static_cast<int32_t>(length));
      for (int64_t i = 0; i < numbers; ++i) {
        const bool used = i * kPageTokens < length;
        tables.push_back(used ? free.back() : -7);  // behind the head's entries a table may hold anything
        if (used) free.pop_back();
      }
      for (int64_t i = 0; i < length; ++i) {
        Entry e{{}, {}, runs.back().first + static_cast<int32_t>(i), 0};
        if (options.positions) e.position = static_cast<int32_t>(draw(900));
        if (options.biases) e.bias = static_cast<float>(draw(1000)) / 300;
        for (int64_t d = 0; d < kDim; ++d) {
          e.k.push_back(static_cast<float>(draw(4000) - 2000) / 1000);
          e.v.push_back(static_cast<float>(draw(4000) - 2000) / 1000);
        }
        store(e, tables[static_cast<size_t>(runs.back().table + h * numbers + i / kPageTokens)], i % kPageTokens);
        entries[r][h].push_back(e);
      }
    }
  }
  /// The entry comes to its page and becomes what the page has of it.
  void store(Entry& e, int64_t page, int64_t slot) {
    const std::vector<int32_t> pages = {static_cast<int32_t>(page)}, slots = {static_cast<int32_t>(slot)};
    const std::vector<int32_t> positions = {e.position};
    std::vector<int32_t> fault = {9};
    write_pages(On("reference"), {.k = view_of(std::span(e.k), {1, kDim}),
                                  .v = view_of(std::span(e.v), {1, kDim}),
                                  .pages = pool(),
                                  .page_base = 0,
                                  .kv_heads = 1,
                                  .head_dim = kDim,
                                  .page = pages,
                                  .entry = slots,
                                  .position = positions,
                                  .fault = fault});
    ASSERT_EQ(fault[0], 0);
    bias.as<float>()[static_cast<size_t>(page * kPageTokens + slot)] = e.bias;
    for (int64_t d = 0; d < kDim; ++d) {
      const int64_t i = (page * kPageTokens + slot) * kDim + d;
      const auto number = [&](const Tensor& x, const Tensor& scale) {
        if (options.stored != DType::i8) return static_cast<float>(element(x, i));
        return scale.view().row<float>(page)[slot] * static_cast<float>(x.view().row<int8_t>(0)[i]);
      };
      e.k[static_cast<size_t>(d)] = number(k, k_scale), e.v[static_cast<size_t>(d)] = number(v, v_scale);
    }
  }
  KeyValuePages pool() const {
    KeyValuePages pages{.k = k.view(),
                        .v = v.view(),
                        .k_scale = {},
                        .v_scale = {},
                        .position = {},
                        .bias = {},
                        .page_tokens = kPageTokens};
    if (options.stored == DType::i8) pages.k_scale = k_scale.view(), pages.v_scale = v_scale.view();
    if (options.positions) pages.position = position.view();
    if (options.biases) pages.bias = bias.view();
    return pages;
  }
  static double scale() { return 0.2; }

  struct Result {
    Matrix out, lse, mass;
  };
  Result attend(std::string_view backend, int threads = 1, int64_t tile_rows = 0) const {
    Result r{Matrix::zeros(kRows, kHeads * kDim, DType::f32, 3), Matrix::zeros(kRows, kHeads, DType::f32),
             Matrix::zeros(1, mass_room(), DType::f32)};
    for (int64_t i = 0; i < mass_room(); ++i) r.mass.set(0, i, -5);
    const PagedPlan plan = plan_tiles(visits, kRows, kHeads / kKvHeads, kKvHeads, tile_rows > 0 ? 64 : threads);
    paged_attention(On(backend, threads), {.q = q.view(),
                                           .out = r.out,
                                           .lse = r.lse,
                                           .pages = pool(),
                                           .page_base = 3,
                                           .heads = kHeads,
                                           .kv_heads = kKvHeads,
                                           .head_dim = kDim,
                                           .scale = scale(),
                                           .window = options.window,
                                           .row_position = row_position,
                                           .row_bound = row_bound,
                                           .tables = tables,
                                           .lengths = lengths,
                                           .runs = runs,
                                           .visits = visits,
                                           .tiles = plan.tiles,
                                           .tile_visits = plan.tile_visits,
                                           .mass = r.mass.vector(),
                                           .mass_offset = mass_offset,
                                           .mass_rows = mass_rows,
                                           .bytes = {}});
    return r;
  }

  bool sees(int64_t row, const Entry& e) const {
    const auto r = static_cast<size_t>(row);
    return e.position <= row_bound[r] && (options.window == 0 || e.position > row_position[r] - options.window);
  }
  double score(int64_t row, int64_t head, const Entry& e) const {
    double sum = 0;
    for (int64_t d = 0; d < kDim; ++d) sum += q.at(row, head * kDim + d) * e.k[static_cast<size_t>(d)];
    return scale() * sum + e.bias;
  }
  /// Calls f(run, i, entry) for what a row sees in a head.
  template <class F> void for_seen(int64_t row, int64_t h, F&& f) const {
    for (const AttentionVisit& visit : visits) {
      if (row < visit.row_begin || row >= visit.row_end) continue;
      int64_t number = 0;
      for (int32_t r = visit.run_begin; r < visit.run_end; ++r) {
        const std::vector<Entry>& of_run = entries[made(r)][h];
        for (size_t i = 0; i < of_run.size(); ++i, ++number)
          if (number >= visit.begin && number < visit.end && sees(row, of_run[i])) f(r, i, of_run[i]);
      }
    }
  }
  Result plain() const {
    Result r{Matrix::zeros(kRows, kHeads * kDim, DType::f64), Matrix::zeros(kRows, kHeads, DType::f64),
             Matrix::zeros(1, mass_room(), DType::f64)};
    for (int64_t i = 0; i < mass_room(); ++i) r.mass.set(0, i, -5);
    for (size_t i = 0; i < mass_offset.size(); ++i)
      for (int64_t e = 0; mass_offset[i] >= 0 && e < lengths[static_cast<size_t>(runs[i / 2].length) + i % 2]; ++e)
        r.mass.set(0, mass_offset[i] + e, 0);
    for (int64_t row = 0; row < kRows; ++row)
      for (int64_t head = 0; head < kHeads; ++head) {
        const int64_t h = head / (kHeads / kKvHeads);
        double sum = 0;
        std::vector<double> out(kDim);
        for_seen(row, h, [&](int32_t, size_t, const Entry& e) {
          const double p = std::exp(score(row, head, e));
          sum += p;
          for (int64_t d = 0; d < kDim; ++d) out[static_cast<size_t>(d)] += p * e.v[static_cast<size_t>(d)];
        });
        r.lse.set(row, head, std::log(sum));
        for (int64_t d = 0; d < kDim && sum > 0; ++d)
          r.out.set(row, head * kDim + d, out[static_cast<size_t>(d)] / sum);
        if (mass_rows[static_cast<size_t>(row)] == 0) continue;
        for_seen(row, h, [&](int32_t run, size_t i, const Entry& e) {
          const int64_t offset = mass_offset[static_cast<size_t>(run * kKvHeads + h)];
          if (offset < 0) return;
          const int64_t place = offset + static_cast<int64_t>(i);
          r.mass.set(0, place, r.mass.at(0, place) + std::exp(score(row, head, e)) / sum / (kHeads / kKvHeads));
        });
      }
    return r;
  }
};

void expect_like_plain(const Options& options, uint64_t seed) {
  const Ragged problem(options, seed);
  const Ragged::Result want = problem.plain();
  double heaviest = 0;
  for (int64_t i = 0; i < problem.mass_room(); ++i) heaviest = std::max(heaviest, want.mass.at(0, i));
  ASSERT_GT(heaviest, 0.5);
  for (const char* backend : {"cpu", "reference"}) {
    SCOPED_TRACE(backend);
    const Ragged::Result got = problem.attend(backend, 2);
    expect_within(got.out, want.out, [](int64_t, int64_t) { return 3e-6; });
    for (int64_t r = 0; r < got.lse.rows(); ++r)
      for (int64_t h = 0; h < got.lse.cols(); ++h)
        ASSERT_TRUE(got.lse.at(r, h) == want.lse.at(r, h) || std::abs(got.lse.at(r, h) - want.lse.at(r, h)) < 3e-6);
    expect_within(got.mass, want.mass, [&](int64_t, int64_t c) { return 1e-6 * (1 + std::abs(want.mass.at(0, c))); });
  }
}

TEST(PagedEntries, AgreeWithPlainLoopsInEveryType) {
  for (const DType stored : {DType::f32, DType::bf16, DType::f16, DType::i8})
    expect_like_plain({.stored = stored}, 3 + static_cast<uint64_t>(stored));
}

TEST(PagedEntries, AgreeWithPlainLoopsInWindowsAndWithoutPositionsAndBiases) {
  for (const int64_t window : {0, 1, 100, 500})
    for (const bool positions : {false, true})
      for (const bool biases : {false, true}) {
        SCOPED_TRACE(testing::Message() << "window " << window << ", positions " << positions << ", biases " << biases);
        expect_like_plain({.positions = positions, .biases = biases, .window = window}, 40);
      }
}

TEST(PagedEntries, HaveOneOrder) {
  for (const DType stored : {DType::f32, DType::i8}) {
    const Ragged problem({.stored = stored, .window = 600}, 8);
    const Ragged::Result want = problem.attend("cpu");
    for_each_target([&](const std::string&) {
      for (const int threads : {1, 2, 7})
        for (const int64_t tiles : {0, 1}) {
          const Ragged::Result got = problem.attend("cpu", threads, tiles);
          EXPECT_TRUE(got.out.equals_bitwise(want.out)) << threads;
          EXPECT_TRUE(got.lse.equals_bitwise(want.lse)) << threads;
          EXPECT_TRUE(got.mass.equals_bitwise(want.mass)) << threads;
        }
    });
  }
}

}  // namespace
}  // namespace tessera::test
