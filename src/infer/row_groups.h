#pragma once
// Which adapter each row of a step reads.

#include <map>
#include <span>
#include <string>
#include <vector>

#include "infer/batch_plan.h"
#include "infer/step_plan.h"
#include "model/model.h"

namespace tessera {

/// The adapters of a plan at work, at their numbers. A null one is the plain base.
/// @param adapters  by name: those that the plan's requests name. "base" may be left out where the base has no deltas
///   of its own; an empty name that is not there is the model's own adapter
/// @throws InternalError for a name that is not there
std::vector<BoundAdapter*> adapters_of(const BatchPlan&, Model&, const std::map<std::string, BoundAdapter*>& adapters);

/// Neighbouring rows that read one adapter, in order. A row of a node reads what the requests below it agree in: the
/// base in front of a request's activation offset, its adapter from there on.
/// @param first_rows  as StepPlan has them: of each work, and behind the last one
std::vector<RowGroup> row_groups(const Schedule&, std::span<const Work>, std::span<const int32_t> first_rows,
                                 std::span<const TokenWeights>, std::span<BoundAdapter* const> adapters);

}  // namespace tessera
