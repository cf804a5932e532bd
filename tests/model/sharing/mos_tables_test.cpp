// Index tables of mixture of shards: which rows of the pools each layer's vectors are made of.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/random.h"
#include "model/sharing/mos.h"

namespace tessera {
namespace {

using testing::ElementsAre;

TEST(MosTables, FollowThePortableGenerator) {
  EXPECT_EQ(mix64(0), 0xe220a8397b1dcdafull);
  EXPECT_EQ(mix64(1), 0x910a2dec89025cc1ull);
  EXPECT_EQ(hash_key({7, 0, 0, 3}), 0xdc13ad580762ba80ull);
  const MosShape shape{
      .layers = 4, .equivalent_rank = 2, .rank = 3, .private_rank = 0, .shards = 2};  // 16 public rows, 6 entries
  EXPECT_THAT(mos_table(shape, MosDraw::random, 7, 0, 0, 3), ElementsAre(1, 12, 15, 11, 4, 9));
  EXPECT_THAT(mos_table(shape, MosDraw::random, 7, 0, 1, 3), ElementsAre(5, 14, 10, 8, 11, 12));
}

TEST(MosTables, PrivateRowsFollowThePublicOnesAndServeBothSides) {
  const MosShape shape{.layers = 4, .equivalent_rank = 3, .rank = 4, .private_rank = 1, .shards = 2};
  for (const int side : {0, 1}) {
    const auto table = mos_table(shape, MosDraw::random, 5, 2, side, 3);
    ASSERT_EQ(table.size(), 8u);
    EXPECT_THAT((std::vector<int32_t>(table.end() - 2, table.end())), ElementsAre(16 + 6, 16 + 7));
  }
}

TEST(MosTables, NeverReadARowTwiceAndKeepPrivateRowsApart) {
  for (const auto [e, r, p, l, layers] :
       {std::array{2, 8, 1, 4, 8}, std::array{4, 7, 3, 2, 5}, std::array{3, 12, 0, 1, 4}, std::array{2, 2, 2, 8, 6}}) {
    const MosShape shape{.layers = layers, .equivalent_rank = e, .rank = r, .private_rank = p, .shards = l};
    std::set<int32_t> taken;
    for (int64_t k = 0; k < layers; ++k) {
      const auto a = mos_table(shape, MosDraw::random, 1, 0, 0, k), b = mos_table(shape, MosDraw::random, 1, 0, 1, k);
      for (const auto& table : {a, b}) {
        EXPECT_EQ(std::set<int32_t>(table.begin(), table.end()).size(), static_cast<size_t>(r * l));
        for (const int32_t row : table) EXPECT_TRUE(row >= 0 && row < shape.rows());
      }
      EXPECT_EQ(a == b, r == p);
      for (auto row = a.end() - p * l; row != a.end(); ++row) {
        EXPECT_GE(*row, shape.public_rows());
        EXPECT_TRUE(taken.insert(*row).second) << "private row " << *row << " is read by two layers";
      }
      EXPECT_TRUE(std::all_of(a.begin(), a.end() - p * l, [&](int32_t row) { return row < shape.public_rows(); }));
    }
  }
}

TEST(MosTables, DifferByLayerTypeSideAndSeed) {
  const MosShape shape{.layers = 8, .equivalent_rank = 2, .rank = 8, .private_rank = 1, .shards = 4};
  std::set<std::vector<int32_t>> tables;
  for (const uint64_t seed : {0, 1})
    for (const uint64_t type : {0, 1, 2})
      for (const int side : {0, 1})
        for (int64_t k = 0; k < 8; ++k) tables.insert(mos_table(shape, MosDraw::random, seed, type, side, k));
  EXPECT_EQ(tables.size(), 2u * 3 * 2 * 8);
}

TEST(MosTables, OfTheTiedDrawAreOneForBothSides) {
  const MosShape shape{.layers = 3, .equivalent_rank = 2, .rank = 4, .private_rank = 1, .shards = 2};
  EXPECT_EQ(mos_table(shape, MosDraw::tied, 4, 1, 0, 2), mos_table(shape, MosDraw::tied, 4, 1, 1, 2));
  EXPECT_EQ(mos_table(shape, MosDraw::tied, 4, 1, 0, 2), mos_table(shape, MosDraw::random, 4, 1, 0, 2));
}

TEST(MosTables, AreTheIdentityWhenEverythingIsPrivate) {
  const MosShape shape{.layers = 3, .equivalent_rank = 2, .rank = 2, .private_rank = 2, .shards = 4};
  for (int64_t k = 0; k < 3; ++k)
    for (const int side : {0, 1}) {
      const auto table = mos_table(shape, MosDraw::random, 9, 1, side, k);
      for (int64_t j = 0; j < 2; ++j)
        for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(table[j * 4 + i], (k * 2 + j) * 4 + i);
    }
}

TEST(MosTables, LeaveTheExpectedShareOfPublicRowsUnread) {
  const auto share = [](int64_t e, int64_t p, int64_t r) {
    return mos_dead_share({.layers = 32, .equivalent_rank = e, .rank = r, .private_rank = p, .shards = 8});
  };
  EXPECT_NEAR(share(2, 1, 4), 0.043, 5e-4);
  EXPECT_NEAR(share(2, 1, 8), 0.0004, 5e-5);
  EXPECT_NEAR(share(8, 1, 16), 0.109, 5e-4);
  EXPECT_NEAR(share(8, 4, 16), 0.043, 5e-4);
  EXPECT_NEAR(share(8, 1, 32), 0.0085, 5e-5);

  const MosShape shape{.layers = 32, .equivalent_rank = 8, .rank = 16, .private_rank = 1, .shards = 8};
  std::set<int32_t> read;
  for (int64_t k = 0; k < 32; ++k)
    for (const int32_t row : mos_table(shape, MosDraw::random, 0, 0, 0, k))
      if (row < shape.public_rows()) read.insert(row);
  const double unread = 1 - static_cast<double>(read.size()) / static_cast<double>(shape.public_rows());
  EXPECT_NEAR(unread, mos_dead_share(shape), 0.03);  // four deviations of a binomial share of 1792 rows
}

}  // namespace
}  // namespace tessera
