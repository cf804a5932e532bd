// Which pages are free: bundles whole and broken.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/error.h"
#include "core/random.h"
#include "infer/page_pool.h"

namespace tessera {
namespace {

TEST(PagePool, HandsOutBundlesFromTheLowestNumberOn) {
  PagePool pool(3, 4);
  EXPECT_EQ(pool.take_bundle(), 0);
  EXPECT_EQ(pool.take_bundle(), 4);
  EXPECT_EQ(pool.take_bundle(), 8);
  EXPECT_EQ(pool.take_bundle(), std::nullopt);
  EXPECT_EQ(pool.pages_in_use(), 12);
  pool.give_bundle(4);
  EXPECT_EQ(pool.take_bundle(), 4);
  EXPECT_EQ(pool.peak_pages(), 12);
}

TEST(PagePool, BreaksABundleForSinglePagesAndMakesItWholeAgain) {
  PagePool pool(2, 3);
  EXPECT_EQ(pool.take_page(), 0);
  EXPECT_EQ(pool.take_page(), 1);
  EXPECT_EQ(pool.take_bundle(), 3);  // the broken one is not whole
  EXPECT_EQ(pool.take_bundle(), std::nullopt);
  EXPECT_EQ(pool.take_page(), 2);
  EXPECT_EQ(pool.take_page(), std::nullopt);
  pool.give_page(1);
  EXPECT_EQ(pool.take_page(), 1);
  for (const int32_t page : {1, 0, 2}) pool.give_page(page);
  EXPECT_EQ(pool.take_bundle(), 0);
}

TEST(PagePool, TakesSinglePagesFromTheLowestBrokenBundle) {
  PagePool pool(3, 2);
  for (int32_t page = 0; page < 6; ++page) ASSERT_EQ(pool.take_page(), page);
  pool.give_page(4);
  pool.give_page(1);
  EXPECT_EQ(pool.take_page(), 1);
  EXPECT_EQ(pool.take_page(), 4);
}

TEST(PagePool, RefusesWhatWasNotHandedOut) {
  PagePool pool(2, 2);
  EXPECT_THROW(pool.give_bundle(0), InternalError);
  EXPECT_THROW(pool.give_page(3), InternalError);
  pool.take_page();
  EXPECT_THROW(pool.give_bundle(0), InternalError);
}

// Against a set of pages, whatever is taken and given.
TEST(PagePool, NeverHandsOutAPageTwice) {
  for (uint64_t trial = 0; trial < 50; ++trial) {
    auto draw = [&, step = uint64_t{0}](uint64_t n) mutable { return draw_below(mix64(trial), step++, n); };
    const auto per = static_cast<int64_t>(1 + draw(5));
    PagePool pool(static_cast<int64_t>(1 + draw(6)), per);
    std::set<int32_t> single, whole;
    std::map<int64_t, int64_t> used;  // of each bundle
    for (int step = 0; step < 400; ++step) {
      const uint64_t what = draw(4);
      if (what == 0) {
        if (const auto first = pool.take_bundle()) {
          EXPECT_EQ(used[*first / per], 0);
          used[*first / per] = per;
          whole.insert(*first);
        } else {
          for (int64_t b = 0; b < pool.bundles(); ++b) EXPECT_GT(used[b], 0);
        }
      } else if (what == 1) {
        if (const auto page = pool.take_page()) {
          EXPECT_TRUE(single.insert(*page).second);
          ++used[*page / per];
        }
      } else if (what == 2 && !whole.empty()) {
        const int32_t first = *std::next(whole.begin(), static_cast<int64_t>(draw(whole.size())));
        whole.erase(first);
        used[first / per] = 0;
        pool.give_bundle(first);
      } else if (what == 3 && !single.empty()) {
        const int32_t page = *std::next(single.begin(), static_cast<int64_t>(draw(single.size())));
        single.erase(page);
        --used[page / per];
        pool.give_page(page);
      }
      int64_t sum = 0;
      for (const auto& [bundle, pages] : used) sum += pages;
      ASSERT_EQ(pool.pages_in_use(), sum);
    }
    for (const int32_t page : single) pool.give_page(page);
    for (const int32_t first : whole) pool.give_bundle(first);
    EXPECT_EQ(pool.pages_in_use(), 0);
    for (int64_t b = 0; b < pool.bundles(); ++b) EXPECT_TRUE(pool.take_bundle());
  }
}

// Single pages of some, and whole bundles that several hold, which come and go as they are drawn: 10,000 times.
TEST(PagePool, MakesEveryBrokenBundleWholeAgain) {
  int64_t given_back = 0, whole_again = 0;
  for (uint64_t trial = 0; given_back < 10'000; ++trial) {
    auto draw = [&, step = uint64_t{0}](uint64_t n) mutable { return draw_below(mix64(trial + 500), step++, n); };
    const auto bundles = static_cast<int64_t>(2 + draw(7)), per = static_cast<int64_t>(2 + draw(5));
    PagePool pool(bundles, per);
    std::vector<std::pair<int32_t, bool>> held;  // pages, and whether each begins a bundle
    const auto give_one_back = [&] {
      std::swap(held[draw(held.size())], held.back());
      const auto [page, is_bundle] = held.back();
      held.pop_back();
      const int64_t before = pool.free_bundles();
      is_bundle ? pool.give_bundle(page) : pool.give_page(page);
      whole_again += !is_bundle && pool.free_bundles() > before;
      ++given_back;
    };
    for (int step = 0; step < 200; ++step) {
      const uint64_t what = draw(5);
      if (what < 2) {
        if (const auto page = pool.take_page()) held.emplace_back(*page, false);
      } else if (what == 2) {
        const auto bundle = pool.take_bundle();
        if (bundle) held.emplace_back(*bundle, true);
        if (bundle && draw(2) == 0) pool.share_bundle(*bundle), held.emplace_back(*bundle, true);
      } else if (!held.empty()) {
        give_one_back();
      }
    }
    while (!held.empty()) give_one_back();
    EXPECT_EQ(pool.pages_in_use(), 0);
    ASSERT_EQ(pool.free_bundles(), bundles) << trial;
    std::set<int32_t> taken;
    while (const auto bundle = pool.take_bundle()) taken.insert(*bundle);
    EXPECT_EQ(std::ssize(taken), bundles);
  }
  EXPECT_GT(whole_again, 500);
}

}  // namespace
}  // namespace tessera
