#pragma once
// Evaluation: a data set scored by all ranks together.

#include <functional>

#include "comm/communicator.h"
#include "core/stop.h"
#include "score/forward.h"

namespace tessera {

/// Loss and accuracy over the dataset's rows (the first `rows`, 0 = all), shared by the ranks;
/// the same sums on every rank.
/// @throws Stopped on every rank when `stop` said so between two batches on any
LossSums evaluate(const Context&, Model&, const PackedDataset&, Communicator&, int64_t micro_batch, int64_t rows = 0,
                  const std::function<bool()>& stop = stop_requested);

}  // namespace tessera
