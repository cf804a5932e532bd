#pragma once
// Evaluations of a run as they are told and kept: which rows they are of, and which figures there are.

#include <string>

#include "core/json.h"
#include "data/packed_dataset.h"
#include "score/objective.h"

namespace tessera {

/// Names the rows that an evaluation of the first `rows` (0: all) reads:
/// two evaluations may be compared when their names are equal.
std::string evaluation_set(const PackedDataset&, int64_t rows);

/// A line of metrics.jsonl with the figures that exist.
Json evaluation_line(int64_t step, const LossSums&, const Objective&);
/// The same for a reader.
std::string evaluation_text(int64_t step, const LossSums&, const Objective&);
/// The sums that a line of metrics.jsonl was made from. What it does not tell is not known.
LossSums sums_told(const Json& evaluation_line, const Objective&);

/// The line of job=evaluate.
Json result_line(const LossSums&, const Objective&);

}  // namespace tessera
