// How many numbers a pool has.

#include "model/sharing/selection.h"

#include <gtest/gtest.h>

#include "model/sharing/depth.h"

namespace tessera {
namespace {

TEST(Cells, AreCountedExactlyAndAsBeforeUnderTheFirstRules) {
  SharingConfig config;
  config.method = "rps";
  config.compression = 1.07;
  EXPECT_EQ(cells_of(config, 535, ""), 500);
  EXPECT_EQ(cells_of(config, 24576, ""), 22968);
  config.rules = Rules::first;
  EXPECT_EQ(cells_of(config, 535, ""), 499);  // 535 / 1.07 is 499.99... in doubles
  EXPECT_EQ(cells_of(config, 24576, ""), 22968);
  config.pool = 7;
  EXPECT_EQ(cells_of(config, 535, ""), 7);
}

TEST(Blocks, AreCountedExactlyAndAsBeforeUnderTheFirstRules) {
  SharingConfig config;
  config.method = "depth";
  config.compression = 1.12;
  EXPECT_EQ(depth_blocks(config, 14, ""), 13);
  config.rules = Rules::first;
  EXPECT_EQ(depth_blocks(config, 14, ""), 12);  // 14 / 1.12 is 12.49... in doubles
}

}  // namespace
}  // namespace tessera
