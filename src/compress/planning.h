#pragma once
// Which of the retained blocks share: from what was removed to a fold plan with groups and parents.
//
// The first `keep_head` and the last `keep_tail` retained blocks stay single. The middle ones are cut into runs of
// consecutive blocks, at most `group` of them in one; a run of two or more is a group that reads one set of weights.

#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "core/key_places.h"
#include "model/fold/plan_shapes.h"

namespace tessera {

/// fixed: runs of `group` from the first on, the last one shorter. cost: the cuts of the least sum of deltas.
enum class PlanningMethod { cost, fixed };
/// Where a group's weights come from: the block whose choice makes the sum of deltas least, the first block, the mean
/// of all, or the mean weighted by their inputs' second moments.
enum class ParentChoice { medoid, first, mean, wmean };

struct GroupingOptions {
  PlanningMethod method = PlanningMethod::cost;
  ParentChoice parent = ParentChoice::medoid;
  int64_t group = 2;                     // G, the most blocks in a run; at least 1
  int64_t keep_head = 2, keep_tail = 1;  // retained blocks that stay single
  std::optional<int64_t> groups = {};    // M, of the middle blocks; not set: as few as can be, or what the target says
  std::optional<double> target = {};     // most stored parameters, over the original's
  std::optional<int64_t> trained = {};   // a block whose weights were trained (a replaced run): it stays single
  double remove = 0;                     // rho, for messages
};

/// delta(child, parent), by original index: what is lost when the child reads the parent's weights.
using PairDelta = std::function<double(int64_t child, int64_t parent)>;

/// A delta that planning asked for.
struct MeasuredDelta {
  int64_t child = 0, parent = 0;
  double delta = 0;
};

struct Grouping {
  FoldPlan plan;
  std::vector<MeasuredDelta> deltas;  // in the order in which they were asked for
  double cost = 0;                    // sum over the groups; of means, as if each read its best block
};

/// Fills in a plan's groups.
///   cost(run) = min over parents in the run of the sum over the others of delta(child, parent),  ties to the first;
/// with ParentChoice::first the parent is the first. Blocks of unequal shapes, and such that lost different halves,
/// never share. With a target, M is the largest number of groups with which the stored parameters are within it; where
/// M is given, or the runs are fixed, the target is only checked.
/// @param removed  base, removed, removed_halves, child and history; its groups are made anew
/// @param delta    called once a pair of blocks that lie less than G apart
/// @param where    place of the recipe's [fold]
/// @throws UserError for a number of groups that cannot be, a target that cannot be met, and fixed runs of blocks that
/// cannot share
Grouping plan_groups(FoldPlan removed, const GroupingOptions&, const ModelShapes&, const PairDelta& delta,
                     const KeyPlaces& where);

}  // namespace tessera
