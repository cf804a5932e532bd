#pragma once
// Evaluations of a run as they are told and kept: which rows they are of, and which figures there are.

#include <string>

#include "core/json.h"
#include "score/batch_loss.h"

namespace tessera {

/// Names the rows that an evaluation of the first `rows` (0: all) reads: two evaluations may be compared when their names are equal.
std::string evaluation_set(const PackedDataset&, int64_t rows);

/// A line of metrics.jsonl with the figures that exist.
Json evaluation_line(int64_t step, const LossSums&, Objective);
/// The same for a reader.
std::string evaluation_text(int64_t step, const LossSums&, Objective);

/// Sums as checkpoints keep them. A sum that is not known is NaN, and absent in JSON.
Json to_json(const LossSums&);
LossSums loss_sums_of(const Json&);

}  // namespace tessera
