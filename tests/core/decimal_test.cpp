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

TEST(ShareOf, TakesTheDecimalThatIsSpelled) {
  EXPECT_EQ(share_of(0.35, 10, Rounding::nearest), 4);  // the double 0.35 is below 35/100
  EXPECT_EQ(share_of(0.35, 10, Rounding::down), 3);
  EXPECT_EQ(share_of(0.29, 100, Rounding::down), 29);  // 28.99... in doubles
  EXPECT_EQ(share_of(0.125, 12, Rounding::nearest), 2);
  EXPECT_EQ(share_of(0.125, 30, Rounding::nearest), 4);
  EXPECT_EQ(share_of(0, 12, Rounding::nearest), 0);
  EXPECT_EQ(share_of(1e-300, 1, Rounding::nearest), 0);
  EXPECT_EQ(share_of(5e-324, 1, Rounding::down), 0);
  EXPECT_EQ(share_of(3e5, 7, Rounding::down), 2100000);
  EXPECT_EQ(share_of(1e300, 3, Rounding::nearest), int64_t{1} << 62);
}

TEST(ShareOf, OfRandomDecimalsIsTheIntegersAnswer) {
  std::mt19937_64 random(22);
  for (int i = 0; i < 20000; ++i) {
    const auto thousandths = static_cast<int64_t>(random() % 2000), count = static_cast<int64_t>(random() % 10000000);
    const double value = std::stod(fmt::format("{}e-3", thousandths));
    EXPECT_EQ(share_of(value, count, Rounding::down), thousandths * count / 1000) << value << " " << count;
    EXPECT_EQ(share_of(value, count, Rounding::nearest), (2 * thousandths * count + 1000) / 2000)
        << value << " " << count;
  }
}

TEST(Quotient, TakesTheDecimalThatIsSpelled) {
  EXPECT_EQ(quotient_of(535, 1.07, Rounding::down), 500);  // 499.99... in doubles
  EXPECT_EQ(quotient_of(534, 1.07, Rounding::down), 499);
  EXPECT_EQ(quotient_of(24576, 5, Rounding::down), 4915);
  EXPECT_EQ(quotient_of(6, 2.5, Rounding::nearest), 2);
  EXPECT_EQ(quotient_of(5, 2, Rounding::nearest), 3);
  EXPECT_EQ(quotient_of(14, 1.12, Rounding::nearest), 13);  // 12.49... in doubles
  EXPECT_EQ(quotient_of(7, 1000, Rounding::nearest), 0);
  EXPECT_EQ(quotient_of(7, 1e300, Rounding::down), 0);
  EXPECT_EQ(quotient_of(6, 0.5, Rounding::nearest), 12);
  EXPECT_EQ(quotient_of(int64_t{1} << 56, 1.2345678901234567, Rounding::down), 58366651696021497);
}

TEST(Quotient, OfRandomDecimalsIsTheIntegersAnswer) {
  std::mt19937_64 random(21);
  for (int i = 0; i < 20000; ++i) {
    const auto hundredths = static_cast<int64_t>(100 + random() % 5000),
               count = static_cast<int64_t>(random() % 10000000);
    const double value = std::stod(fmt::format("{}e-2", hundredths));
    EXPECT_EQ(quotient_of(count, value, Rounding::down), 100 * count / hundredths) << count << " / " << value;
    EXPECT_EQ(quotient_of(count, value, Rounding::nearest), (200 * count + hundredths) / (2 * hundredths))
        << count << " / " << value;
  }
}

}  // namespace
}  // namespace tessera
