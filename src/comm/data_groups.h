#pragma once
// Ranks in groups that share rows: for ways of computing in which several ranks work on one row.

#include "comm/communicator.h"
#include "core/data_share.h"

namespace tessera {

/// This rank's share of the data. Ranks r · k to r · k + k - 1 are group r.
/// @param ranks_a_group  k, a divisor of the number of ranks. Every job of today has groups of one.
DataShare data_share_of(const Communicator&, int ranks_a_group = 1);

/// @throws InternalError unless every rank is a group of its own: what is summed over all ranks and was not made for
/// groups would count a share more than once
void require_groups_of_one(const Communicator&, const DataShare&);

}  // namespace tessera
