#pragma once
// Evaluation: a data set scored by all ranks together.

#include <functional>

#include "comm/communicator.h"
#include "core/stop.h"
#include "score/forward.h"

namespace tessera {

/// Loss and accuracy over the dataset's rows (the first `rows`, 0 = all), each share of them scored by its ranks;
/// the same sums on every rank, in which a share that several ranks hold counts once.
/// @throws Stopped on every rank when `stop` said so between two batches on any
LossSums evaluate(const Context&, Model&, const PackedDataset&, Communicator&, const DataShare&, int64_t micro_batch,
                  int64_t rows = 0, const std::function<bool()>& stop = stop_requested);

}  // namespace tessera
