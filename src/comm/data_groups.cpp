#include "comm/data_groups.h"

#include "core/error.h"

namespace tessera {

DataShare data_share_of(const Communicator& world, int ranks_a_group) {
  TS_CHECK(ranks_a_group > 0 && world.size() % ranks_a_group == 0, "groups of {} ranks of {}", ranks_a_group,
           world.size());
  return {.index = world.rank() / ranks_a_group,
          .count = world.size() / ranks_a_group,
          .member = world.rank() % ranks_a_group};
}

void require_groups_of_one(const Communicator& world, const DataShare& share) {
  TS_CHECK(share.count == world.size() && share.index == world.rank(), "share {} of {} on rank {} of {}", share.index,
           share.count, world.rank(), world.size());
}

}  // namespace tessera
