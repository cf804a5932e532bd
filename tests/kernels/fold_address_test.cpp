// Where a folded weight lies. Everything here is constexpr and runs on the device as it stands (nvcc
// --expt-relaxed-constexpr), but for FoldHash's constructor from a seed, which belongs to the host.
#include "kernels/fold_address.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

namespace tessera {
namespace {

// Worked out from the definition apart from this program: 27 weights on 10 cells, rotations 0, 4 and 3. Each chunk
// begins at its rotation, wraps behind cell 9, and the last one is cut after 7 weights; the first has no signs.
constexpr FoldHash kGolden(7, 10);
static_assert(kGolden.rotation(0) == 0 && kGolden.rotation(1) == 4 && kGolden.rotation(2) == 3);
static_assert(kGolden.cell(10) == 4 && kGolden.reader(1, 4) == 10 && kGolden.negative(13) && !kGolden.negative(15));

TEST(FoldHash, HasTheAddressesOfTheDefinition) {
  const std::vector<int64_t> cells{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9};
  const std::string signs = "+++++++++++++--++---+++--++";
  for (int64_t i = 0; i < 27; ++i) {
    EXPECT_EQ(kGolden.cell(i), cells[static_cast<size_t>(i)]) << i;
    EXPECT_EQ(kGolden.negative(i), signs[static_cast<size_t>(i)] == '-') << i;
  }
}

struct Range {
  int64_t weights, cells;
};
const Range kRanges[] = {{1, 1},      {9, 1},       {50, 2},    {97, 97},    {1000, 97},
                         {1000, 999}, {1000, 1000}, {4096, 64}, {5000, 4999}};

TEST(FoldHash, TheReadersOfACellAreTheInverseOfItsAddress) {
  for (const auto& [weights, cells] : kRanges) {
    const FoldHash hash(static_cast<uint64_t>(weights), cells);
    std::vector<bool> found(static_cast<size_t>(weights));
    for (int64_t chunk = 0; chunk * cells < weights; ++chunk) {
      for (int64_t cell = 0; cell < cells; ++cell) {
        const int64_t i = hash.reader(chunk, cell);
        ASSERT_EQ(i / cells, chunk);
        ASSERT_EQ(hash.cell(i), cell);
        if (i < weights) found[static_cast<size_t>(i)] = true;
      }
    }
    EXPECT_EQ(std::count(found.begin(), found.end(), true), weights) << weights << " on " << cells;
  }
}

TEST(FoldHash, CellsDifferByOneReaderAtMost) {
  for (const auto& [weights, cells] : kRanges) {
    const FoldHash hash(11, cells);
    std::vector<int64_t> readers(static_cast<size_t>(cells));
    for (int64_t i = 0; i < weights; ++i) ++readers[static_cast<size_t>(hash.cell(i))];
    for (const int64_t count : readers) {
      ASSERT_GE(count, weights / cells) << weights << " on " << cells;
      ASSERT_LE(count, (weights + cells - 1) / cells) << weights << " on " << cells;
    }
  }
}

TEST(FoldHash, WithACellForEachWeightItIsTheIdentity) {
  const FoldHash hash(3, 1000);
  for (int64_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(hash.cell(i), i);
    EXPECT_FALSE(hash.negative(i));
  }
}

TEST(FoldHash, CountsBeyondThirtyTwoBits) {
  const int64_t weights = 3'000'000'000;
  for (const int64_t cells : {int64_t{7}, int64_t{300'000'007}, int64_t{2'500'000'000}}) {
    const FoldHash hash(5, cells);
    for (int64_t i = 0; i < weights; i += 1'234'567) {
      const int64_t cell = hash.cell(i);
      ASSERT_TRUE(0 <= cell && cell < cells) << i;
      ASSERT_EQ(cell, static_cast<int64_t>((static_cast<unsigned __int128>(hash.rotation(i / cells)) +
                                            static_cast<unsigned __int128>(i)) %
                                           static_cast<unsigned __int128>(cells)))
          << i;
      ASSERT_EQ(hash.reader(i / cells, cell), i);
    }
  }
  const FoldHash wide(5, 2'500'000'000);
  EXPECT_EQ(wide.cell(2'499'999'999), 2'499'999'999);
  EXPECT_GT(wide.rotation(1) + wide.rotation(2) + wide.rotation(3), int64_t{1} << 31);  // not cut to 32 bits
}

TEST(FoldHash, SignsAreEvenAndUnlikeThoseOfAnotherChunk) {
  const int64_t cells = 20'000;
  const FoldHash hash(123321, cells);
  int64_t negative = 0, equal = 0;
  for (int64_t o = 0; o < cells; ++o) {
    negative += hash.negative(cells + o);
    equal += hash.negative(hash.reader(1, o)) == hash.negative(hash.reader(2, o));
  }
  const double four_deviations = 4 * 0.5 * std::sqrt(static_cast<double>(cells));
  EXPECT_NEAR(static_cast<double>(negative), 0.5 * static_cast<double>(cells), four_deviations);
  EXPECT_NEAR(static_cast<double>(equal), 0.5 * static_cast<double>(cells), four_deviations);
}

const FoldLayout kLayouts[] = {{5, 7},           {1, 9},         {9, 1},          {64, 96, 32, 32},
                               {33, 70, 32, 32}, {7, 5, 32, 32}, {20, 30, 8, 16}, {20, 30, 1, 16},
                               {20, 30, 16, 1},  {6, 10, 4},     {31, 17, 16, 16}};

TEST(FoldLayout, NumbersEachElementOnce) {
  for (const FoldLayout& layout : kLayouts) {
    std::set<int64_t> positions;
    for (int64_t r = 0; r < layout.rows; ++r) {
      for (int64_t c = 0; c < layout.cols; ++c) {
        const int64_t position = layout.position(r, c);
        positions.insert(position);
        ASSERT_EQ(layout.element(position), r * layout.cols + c) << layout.rows << " x " << layout.cols;
      }
    }
    EXPECT_EQ(static_cast<int64_t>(positions.size()), layout.count());
    EXPECT_EQ(*positions.begin(), 0);
    EXPECT_EQ(*positions.rbegin(), layout.count() - 1);
  }
}

TEST(FoldLayout, ARunFollowsItselfInBothOrdersAndEndsWhereItMust) {
  for (const FoldLayout& layout : kLayouts) {
    for (int64_t element = 0; element < layout.count(); ++element) {
      const int64_t row = element / layout.cols, col = element % layout.cols, run = layout.run(row, col);
      ASSERT_GE(run, 1);
      for (int64_t k = 0; k < run; ++k) ASSERT_EQ(layout.element(layout.position(row, col) + k), element + k);
    }
  }
}

TEST(FoldLayout, CountsTilesRowByRow) {
  const FoldLayout layout{4, 6, 2, 3};
  // Tiles of 2 x 3 of a matrix of 4 x 6: upper left, upper right, lower left, lower right, row by row in each.
  const std::vector<int64_t> elements{0,  1,  2,  6,  7,  8,  3,  4,  5,  9,  10, 11,
                                      12, 13, 14, 18, 19, 20, 15, 16, 17, 21, 22, 23};
  for (size_t p = 0; p < elements.size(); ++p) EXPECT_EQ(layout.element(static_cast<int64_t>(p)), elements[p]);
}

}  // namespace
}  // namespace tessera
