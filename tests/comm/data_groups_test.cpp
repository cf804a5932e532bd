#include "comm/data_groups.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "world.h"

namespace tessera::test {
namespace {

TEST(DataGroups, ConsecutiveRanksHoldOneShareAndTheFirstOfThemLeads) {
  in_every_world([](Communicator& world) {
    for (int each = 1; each <= world.size(); ++each) {
      if (world.size() % each != 0) {
        EXPECT_THROW(data_share_of(world, each), InternalError);
        continue;
      }
      const DataShare share = data_share_of(world, each);
      EXPECT_EQ(share.count, world.size() / each);
      EXPECT_EQ(share.index * each + share.member, world.rank());
      EXPECT_LT(share.member, each);
      // Among all ranks every share has one leader.
      std::vector<double> leaders(static_cast<size_t>(share.count)), ones(leaders.size(), 1.0);
      leaders[static_cast<size_t>(share.index)] = share.leads() ? 1 : 0;
      world.all_reduce_sum(std::span<double>(leaders));
      EXPECT_EQ(leaders, ones);
    }
    EXPECT_THROW(data_share_of(world, 0), InternalError);
  });
}

TEST(DataGroups, OfOneAreTheRanksThemselves) {
  in_every_world([](Communicator& world) {
    const DataShare share = data_share_of(world);
    EXPECT_EQ(share.index, world.rank());
    EXPECT_EQ(share.count, world.size());
    EXPECT_TRUE(share.leads());
    EXPECT_NO_THROW(require_groups_of_one(world, share));
    if (world.size() == 1) return;
    EXPECT_THROW(require_groups_of_one(world, data_share_of(world, world.size())), InternalError);
    EXPECT_THROW(require_groups_of_one(world, {}), InternalError);
  });
}

}  // namespace
}  // namespace tessera::test
