#include "comm/stop_together.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "world.h"

namespace tessera::test {
namespace {

TEST(StopTogether, OneRankThatIsAskedTakesAllWithIt) {
  EXPECT_FALSE(any_asked(world(), false));
  EXPECT_NO_THROW(leave_together(world(), false, "resting"));
  for (int asked = 0; asked < world().size(); ++asked) {
    EXPECT_TRUE(any_asked(world(), world().rank() == asked));
    try {
      leave_together(world(), world().rank() == asked, "resting");
      ADD_FAILURE() << "rank " << world().rank() << " went on";
    } catch (const Stopped& stop) {
      EXPECT_STREQ(stop.what(), "stopped while resting");
    }
  }
}

}  // namespace
}  // namespace tessera::test
