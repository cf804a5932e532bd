// Pages of tails that continue each other.
#include "infer/tails.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace tessera {
namespace {

using testing::ElementsAre;

constexpr int64_t kPage = 4;

std::vector<int32_t> bundles(const Tails& tails, int64_t tail) {
  return {tails.table(tail).begin(), tails.table(tail).end()};
}

TEST(PagePool, FreesABundleWhenItsLastHolderGivesItBack) {
  PagePool pool(2, 3);
  EXPECT_EQ(pool.take_bundle(), 0);
  pool.share_bundle(0);
  pool.share_bundle(0);
  EXPECT_EQ(pool.holders(0), 3);
  EXPECT_EQ(pool.pages_in_use(), 3);
  pool.give_bundle(0);
  pool.give_bundle(0);
  EXPECT_EQ(pool.pages_in_use(), 3);
  pool.give_bundle(0);
  EXPECT_EQ(pool.pages_in_use(), 0);
  EXPECT_EQ(pool.free_bundles(), 2);
  EXPECT_THROW(pool.give_bundle(0), InternalError);
  EXPECT_THROW(pool.share_bundle(0), InternalError);
  pool.take_page();  // of a bundle that is not handed out whole
  EXPECT_THROW(pool.share_bundle(0), InternalError);
}

TEST(Tails, ShareFullBundlesAndCopyThoseWithRoom) {
  PagePool pool(10, 1);
  Tails tails;
  std::vector<BundleCopy> copies;
  tails.feed(pool, 0, 6, kPage, copies);
  EXPECT_THAT(bundles(tails, 0), ElementsAre(0, 1));
  tails.branch(pool, std::vector<int32_t>{0, 0, 0});
  EXPECT_EQ(tails.count(), 3);
  EXPECT_EQ(tails.bundles(), 2);
  EXPECT_EQ(pool.pages_in_use(), 2);

  EXPECT_EQ(tails.bundles_to_feed(pool, 6, 7, kPage), 2);
  tails.feed(pool, 6, 7, kPage, copies);
  ASSERT_EQ(copies.size(), 2);
  for (const BundleCopy& c : copies) EXPECT_EQ(c.from, 1);
  EXPECT_THAT(bundles(tails, 0), ElementsAre(0, copies[0].to));
  EXPECT_THAT(bundles(tails, 1), ElementsAre(0, copies[1].to));
  EXPECT_THAT(bundles(tails, 2), ElementsAre(0, 1));  // the last one keeps the place
  EXPECT_EQ(tails.bundles(), 4);

  // Nobody shares the last one any more.
  EXPECT_EQ(tails.bundles_to_feed(pool, 7, 8, kPage), 0);
  // A full one is shared, and each takes another one behind it.
  tails.branch(pool, std::vector<int32_t>{2, 2});
  EXPECT_EQ(pool.pages_in_use(), 2);
  EXPECT_EQ(tails.bundles_to_feed(pool, 8, 9, kPage), 2);
  copies.clear();
  tails.feed(pool, 8, 9, kPage, copies);
  EXPECT_TRUE(copies.empty());
  EXPECT_EQ(pool.holders(1), 2);
  EXPECT_EQ(tails.bundles(), 4);
  tails.release(pool);
  EXPECT_EQ(tails.count(), 2);
  EXPECT_EQ(pool.free_bundles(), 10);
}

TEST(Tails, ContinueOnlyWhatIsThere) {
  PagePool pool(1, 1);
  Tails tails;
  EXPECT_THROW(tails.branch(pool, std::vector<int32_t>{1}), InternalError);
  EXPECT_THROW(tails.branch(pool, {}), InternalError);
  std::vector<BundleCopy> copies;
  EXPECT_THROW(tails.feed(pool, 0, kPage + 1, kPage, copies), InternalError);
}

}  // namespace
}  // namespace tessera
