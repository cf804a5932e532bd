// Rows on their way into pages: what is kept of each number, where it comes to lie, and which numbers are refused.

#include <cfenv>

#include "core/error.h"
#include "kernels/harness.h"
#include "kernels/key_value_pages.h"

namespace tessera::test {
namespace {

/// Pages of which every number is a mark that no test writes.
struct Pool {
  int64_t head_dim, page_tokens;
  Tensor k, v, k_scale, v_scale, position;
  Pool(int64_t pages, int64_t page_tokens, int64_t head_dim, DType stored)
      : head_dim(head_dim),
        page_tokens(page_tokens),
        k({pages, page_tokens * head_dim}, stored),
        v({pages, page_tokens * head_dim}, stored),
        k_scale({pages, page_tokens}, DType::f32),
        v_scale({pages, page_tokens}, DType::f32),
        position({pages, page_tokens}, DType::i32) {
    for (const Tensor* x : {&k, &v, &k_scale, &v_scale, &position})
      std::memset(x->view().mutable_data(), 0x35, static_cast<size_t>(x->view().bytes()));
  }
  KeyValuePages pages() const {
    KeyValuePages all{.k = k.view(),
                      .v = v.view(),
                      .k_scale = {},
                      .v_scale = {},
                      .position = position.view(),
                      .bias = {},
                      .page_tokens = page_tokens};
    if (k.dtype() == DType::i8) all.k_scale = k_scale.view(), all.v_scale = v_scale.view();
    return all;
  }
  std::vector<std::vector<std::byte>> bytes() const {
    std::vector<std::vector<std::byte>> all;
    for (const Tensor* x : {&k, &v, &k_scale, &v_scale, &position}) {
      const auto* data = static_cast<const std::byte*>(x->view().data);
      all.emplace_back(data, data + x->view().bytes());
    }
    return all;
  }
};

struct Rows {
  Matrix k, v;
  std::vector<int32_t> page, entry, position;
};

/// Writes and returns the faults.
std::vector<int32_t> write(const Context& ctx, const Rows& rows, const Pool& pool, int64_t kv_heads, int64_t base) {
  std::vector<int32_t> fault(rows.page.size(), 77);
  write_pages(ctx, {.k = rows.k.view(),
                    .v = rows.v.view(),
                    .pages = pool.pages(),
                    .page_base = base,
                    .kv_heads = kv_heads,
                    .head_dim = pool.head_dim,
                    .page = rows.page,
                    .entry = rows.entry,
                    .position = rows.position,
                    .fault = fault});
  return fault;
}

/// Every third row is not kept; the others go to pages in steps of six, backwards.
Rows some_rows(int64_t count, int64_t width, int64_t page_tokens, uint64_t seed) {
  Rows rows{Matrix::random(count, width, DType::f32, seed, 3, 5),
            Matrix::random(count, width, DType::f32, seed + 1, 3),
            {},
            {},
            {}};
  for (int64_t r = 0; r < count; ++r) {
    rows.page.push_back(static_cast<int32_t>(r % 3 == 2 ? -1 : (count - r) / page_tokens * 6));
    rows.entry.push_back(static_cast<int32_t>((count - r) % page_tokens));
    rows.position.push_back(static_cast<int32_t>(1000 + r));
  }
  return rows;
}

TEST(WritePages, PutsEachHeadOfARowOnItsOwnPageAndTouchesNothingElse) {
  const Rows rows = some_rows(20, 2 * 5, 8, 3);
  const Pool pool(20, 8, 5, DType::f32), before(20, 8, 5, DType::f32);
  EXPECT_THAT(write(On("cpu"), rows, pool, 2, 4), testing::Each(0));
  int64_t written = 0;
  for (int64_t page = 0; page < 20; ++page)
    for (int64_t e = 0; e < 8; ++e) {
      int64_t from = -1, head = 0;
      for (int64_t r = 0; r < 20; ++r)
        for (int64_t h = 0; h < 2; ++h)
          if (rows.page[r] >= 0 && rows.page[r] + 4 + h == page && rows.entry[r] == e) from = r, head = h;
      written += from >= 0;
      EXPECT_EQ(pool.position.view().row<int32_t>(page)[e], from < 0 ? 0x35353535 : 1000 + from);
      for (int64_t d = 0; d < 5; ++d) {
        const auto mark = before.k.view().row<float>(0)[0];
        EXPECT_EQ(pool.k.view().row<float>(page)[e * 5 + d], from < 0 ? mark : rows.k.at(from, head * 5 + d));
        EXPECT_EQ(pool.v.view().row<float>(page)[e * 5 + d], from < 0 ? mark : rows.v.at(from, head * 5 + d));
      }
    }
  EXPECT_EQ(written, 14 * 2);
}

TEST(WritePages, EveryBackendAndInstructionSetWritesTheSameBytes) {
  for (const DType stored : {DType::f32, DType::bf16, DType::f16, DType::i8})
    for (const int64_t dim : {1, 5, 16, 33, 64, 128}) {
      const Rows rows = some_rows(90, 3 * dim, 16, 3);
      const Pool want(48, 16, dim, stored);
      EXPECT_THAT(write(On("reference"), rows, want, 3, 2), testing::Each(0));
      for_each_target([&](const std::string&) {
        for (const int threads : {1, 3}) {
          const Pool got(48, 16, dim, stored);
          EXPECT_THAT(write(On("cpu", threads), rows, got, 3, 2), testing::Each(0));
          EXPECT_EQ(got.bytes(), want.bytes()) << name_of(stored) << " " << dim;
        }
      });
    }
}

/// One head of one row, at entry 0 of page 0.
struct One {
  Pool pool;
  int32_t fault;
  One(const char* backend, const std::vector<float>& x, DType stored)
      : pool(1, 8, static_cast<int64_t>(x.size()), stored), fault(0) {
    const auto dim = static_cast<int64_t>(x.size());
    Rows rows{Matrix::zeros(1, dim, DType::f32), Matrix::zeros(1, dim, DType::f32), {0}, {0}, {0}};
    for (int64_t d = 0; d < dim; ++d) rows.k.set(0, d, 0), rows.v.set(0, d, x[static_cast<size_t>(d)]);
    fault = write(On(backend), rows, pool, 1, 0)[0];
  }
};

TEST(WritePages, CodesAreTheNearestMultiplesOfTheScaleTiesToEven) {
  // A scale of 1: codes are the numbers themselves, rounded.
  const std::vector<float> ties = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 3.49f, -126.5f, 0};
  const std::vector<int> want = {127, 0, 2, 2, 0, -2, -2, 3, -126, 0};
  for (const char* backend : {"cpu", "reference"}) {
    const One one(backend, ties, DType::i8);
    EXPECT_EQ(one.pool.v_scale.as<float>()[0], 1);
    for (size_t d = 0; d < want.size(); ++d) EXPECT_EQ(one.pool.v.as<int8_t>()[d], want[d]) << backend << " " << d;
    EXPECT_EQ(one.pool.k_scale.as<float>()[0], 0);
    for (size_t d = 0; d < want.size(); ++d) EXPECT_EQ(one.pool.k.as<int8_t>()[d], 0);
  }
  const RandomStream stream(3, 3);
  for (uint64_t trial = 0; trial < 50; ++trial) {
    std::vector<float> x;
    for (uint64_t d = 0; d < 40; ++d)
      x.push_back(static_cast<float>(std::ldexp(stream.normal(trial * 64 + d), static_cast<int>(trial) * 3 - 75)));
    const One one("cpu", x, DType::i8);
    const float scale = one.pool.v_scale.as<float>()[0];
    for (size_t d = 0; d < x.size(); ++d)
      EXPECT_LE(std::abs(x[d] - static_cast<double>(scale) * one.pool.v.as<int8_t>()[d]), scale * 0.5 * (1 + 1e-5));
  }
}

TEST(WritePages, TellsTheFirstHeadThatDoesNotFit) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  for (const char* backend : {"cpu", "reference"})
    for (const bool in_v : {false, true}) {
      const auto fault = [&](DType stored, std::vector<std::pair<int64_t, float>> numbers) {
        Rows rows{Matrix::random(3, 3 * 20, DType::f32, 1),
                  Matrix::random(3, 3 * 20, DType::f32, 2),
                  {0, -1, 0},
                  {0, 1, 2},
                  {0, 1, 2}};
        for (const auto& [column, x] : numbers) (in_v ? rows.v : rows.k).set(2, column, x), rows.k.set(1, column, x);
        const Pool pool(3, 8, 20, stored);
        const std::vector<int32_t> faults = write(On(backend), rows, pool, 3, 0);
        EXPECT_EQ(faults[0], 0);
        EXPECT_EQ(faults[1], 0);  // not kept, not looked at
        return faults[2];
      };
      for (const float x : {kInf, -kInf, kNan}) {
        EXPECT_EQ(fault(DType::i8, {{39, x}}), 2);
        EXPECT_EQ(fault(DType::f32, {{39, x}}), 0);
        EXPECT_EQ(fault(DType::bf16, {{39, x}}), 0);
      }
      EXPECT_EQ(fault(DType::i8, {{59, kNan}, {0, kInf}}), 1);
      EXPECT_EQ(fault(DType::i8, {{7, 3e38f}, {8, -3e38f}}), 0);
      EXPECT_EQ(fault(DType::f16, {{20, 65519.0f}}), 0);
      EXPECT_EQ(fault(DType::f16, {{20, 65520.0f}}), 2);
      EXPECT_EQ(fault(DType::f16, {{59, -1e9f}}), 3);
      EXPECT_EQ(fault(DType::f16, {{59, kNan}}), 0);
    }
}

TEST(WritePages, PagesOutsideThePoolAreRefused) {
  Rows rows = some_rows(4, 10, 8, 1);
  const Pool pool(4, 8, 5, DType::f32);
  rows.page = {0, -1, 3, 0};
  EXPECT_THROW(write(On("cpu"), rows, pool, 2, 0), InternalError);
  rows.page[2] = 2;
  write(On("cpu"), rows, pool, 2, 0);
  EXPECT_THROW(write(On("cpu"), rows, pool, 2, 1), InternalError);
  rows.entry[0] = 8;
  EXPECT_THROW(write(On("cpu"), rows, pool, 2, 0), InternalError);
}

}  // namespace
}  // namespace tessera::test
