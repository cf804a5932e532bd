#pragma once
// What can be wrong with a fold plan, by itself and beside the model that it is meant for.

#include <optional>
#include <string>

#include "core/json_place.h"
#include "model/fold/plan.h"

namespace tessera {

/// The most blocks that a plan may be of.
constexpr int64_t kMostFoldLayers = 65536;

struct PlanFault {
  JsonPath at;  // where in the plan's file
  std::string what, hint;
};

/// The first fault of a plan in itself: a block missing, twice, out of order or both removed and retained; a group that
/// is not consecutive among the retained blocks, or of blocks that lost different halves; a parent outside its group;
/// values, a rank or a number of layers that cannot be.
std::optional<PlanFault> fault_of(const FoldPlan&);

/// Whether a plan without fault is of this model: its number of layers, its family, and its fingerprint where both
/// sides tell one.
std::optional<PlanFault> fault_beside(const FoldPlan&, const FoldBase&);

/// @param where  names the plan in the error
/// @throws UserError for the first fault of either kind
void require_sound(const FoldPlan&, const FoldBase&, const std::string& where);

}  // namespace tessera
