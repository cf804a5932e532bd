// How many numbers a pool has.

#include "model/sharing/selection.h"

#include <gtest/gtest.h>

#include "model/sharing/depth.h"

namespace tessera {
namespace {

TEST(Cells, AreCountedExactlyAndAsBeforeUnderTheFirstRules) {
  SharingConfig config;
  config.method = "rps";
  config.compression = 1.1;
  EXPECT_EQ(cells_of(config, 165, ""), 150);
  EXPECT_EQ(cells_of(config, 24576, ""), 22341);
  config.rules = Rules::first;
  EXPECT_EQ(cells_of(config, 165, ""), 149);  // 165 / 1.1 is 149.99... in doubles
  EXPECT_EQ(cells_of(config, 24576, ""), 22341);
  config.pool = 7;
  EXPECT_EQ(cells_of(config, 165, ""), 7);
}

}  // namespace
}  // namespace tessera
