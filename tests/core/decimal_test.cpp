#include "core/decimal.h"

#include <gtest/gtest.h>

#include <random>

#include "core/error.h"

namespace tessera {
namespace {

TEST(CeilOfShare, TakesTheDecimalThatIsSpelled) {
  EXPECT_EQ(ceil_of_share(7, 29, 7), 29);    // in doubles 7 · (29 / 7) is above 29
  EXPECT_EQ(ceil_of_share(0.28, 25), 7);     // the double 0.28 is above 28/100
  EXPECT_EQ(ceil_of_share(0.9, 50, 3), 15);  // 0.9 · (50 / 3) is above 15
  EXPECT_EQ(ceil_of_share(0.3, 10), 3);
  EXPECT_EQ(ceil_of_share(0.07, 100), 7);
  EXPECT_EQ(ceil_of_share(1.1, 10), 11);
  EXPECT_EQ(ceil_of_share(1.1, 10, 11), 1);
}

TEST(CeilOfShare, RoundsUpWhatIsLeft) {
  EXPECT_EQ(ceil_of_share(1, 29, 7), 5);
  EXPECT_EQ(ceil_of_share(0.281, 25), 8);
  EXPECT_EQ(ceil_of_share(1e-300, 1), 1);
  EXPECT_EQ(ceil_of_share(5e-324, 1, 1000), 1);
  EXPECT_EQ(ceil_of_share(0, 12), 0);
  EXPECT_EQ(ceil_of_share(0.5, 0), 0);
}

TEST(CeilOfShare, StaysExactForManyEpochsAndEndsAtTwoToThe62) {
  EXPECT_EQ(ceil_of_share(1e9, 1000000007), 1000000007000000000);
  EXPECT_EQ(ceil_of_share(123456789.5, 10), 1234567895);
  EXPECT_EQ(ceil_of_share(1e300, 1), int64_t{1} << 62);
  EXPECT_EQ(ceil_of_share(1e300, 3, int64_t{1} << 56), int64_t{1} << 62);
  EXPECT_EQ(ceil_of_share(2, int64_t{1} << 62), int64_t{1} << 62);
}

TEST(CeilOfShare, OfRandomDecimalsIsTheIntegersAnswer) {
  std::mt19937_64 random(20);
  for (int i = 0; i < 20000; ++i) {
    const auto thousandths = static_cast<int64_t>(random() % 100000), rows = static_cast<int64_t>(1 + random() % 5000),
               batch = static_cast<int64_t>(1 + random() % 300), whole = thousandths * rows, per = 1000 * batch;
    EXPECT_EQ(ceil_of_share(std::stod(fmt::format("{}e-3", thousandths)), rows, batch), (whole + per - 1) / per)
        << thousandths << " " << rows << " " << batch;
  }
}

}  // namespace
}  // namespace tessera
