#include "model/fold/plan_check.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {
namespace {

using Fault = std::optional<PlanFault>;

constexpr int64_t kMostRank = 1024;

template <class... Args> PlanFault fault(JsonPath at, fmt::format_string<Args...> what, Args&&... args) {
  return {std::move(at), fmt::format(what, std::forward<Args>(args)...), {}};
}

int64_t number_of(size_t i) { return static_cast<int64_t>(i); }

Fault fault_of_range(const FoldPlan& plan, int64_t block, const JsonPath& at) {
  if (0 <= block && block < plan.base.layers) return {};
  return fault(at, "there is no block {}: the plan is of {} layers, 0 to {}", block, plan.base.layers,
               plan.base.layers - 1);
}

Fault fault_of_removed(const FoldPlan& plan) {
  for (size_t i = 0; i < plan.removed.size(); ++i) {
    const JsonPath at = {"removed", number_of(i)};
    if (Fault found = fault_of_range(plan, plan.removed[i], at)) return found;
    if (i == 0 || plan.removed[i] > plan.removed[i - 1]) continue;
    if (plan.removed[i] == plan.removed[i - 1]) return fault(at, "block {} is removed twice", plan.removed[i]);
    return fault(at, "removed block {} stands behind {}: they ascend", plan.removed[i], plan.removed[i - 1]);
  }
  if (plan.virtual_layers() == 0) return fault({"removed"}, "every block is removed");
  return {};
}

Fault fault_of_halves(const FoldPlan& plan) {
  const auto& halves = plan.removed_halves;
  for (size_t i = 0; i < halves.size(); ++i) {
    const JsonPath at = {"removed_halves", number_of(i)};
    const auto& [block, part] = halves[i];
    if (Fault found = fault_of_range(plan, block, at)) return found;
    if (std::binary_search(plan.removed.begin(), plan.removed.end(), block))
      return fault(at, "block {} is removed as a whole: its {} does not count again", block, name_of(part));
    if (i == 0) continue;
    if (halves[i] == halves[i - 1]) return fault(at, "the {} of block {} is removed twice", name_of(part), block);
    if (block == halves[i - 1].block) return fault(at, "block {} lost both halves: it belongs to \"removed\"", block);
    if (halves[i] < halves[i - 1])
      return fault(at, "block {} stands behind {}: they ascend", block, halves[i - 1].block);
  }
  return {};
}

/// Every retained block once: ranges, repetitions, removed ones; then those that are missing.
Fault fault_of_membership(const FoldPlan& plan) {
  constexpr size_t kNowhere = SIZE_MAX;
  std::vector<size_t> group_of(static_cast<size_t>(plan.base.layers), kNowhere);
  for (size_t g = 0; g < plan.groups.size(); ++g) {
    if (plan.groups[g].blocks.empty()) return fault({"groups", number_of(g), "blocks"}, "group {} is empty", g);
    for (size_t i = 0; i < plan.groups[g].blocks.size(); ++i) {
      const int64_t block = plan.groups[g].blocks[i];
      const JsonPath at = {"groups", number_of(g), "blocks", number_of(i)};
      if (Fault found = fault_of_range(plan, block, at)) return found;
      if (std::binary_search(plan.removed.begin(), plan.removed.end(), block))
        return fault(at, "block {} is removed and stands in group {}", block, g);
      size_t& home = group_of[static_cast<size_t>(block)];
      if (home == g) return fault(at, "block {} stands twice in group {}", block, g);
      if (home != kNowhere) return fault(at, "block {} stands in two groups", block);
      home = g;
    }
  }
  for (const int64_t block : retained_blocks(plan.base.layers, plan.removed))
    if (group_of[static_cast<size_t>(block)] == kNowhere)
      return fault({"groups"}, "block {} is missing: it is neither removed nor in a group", block);
  return {};
}

/// Once every retained block stands in one group, groups are runs in order when their blocks, read one after the
/// other, are the retained ones.
Fault fault_of_order(const FoldPlan& plan) {
  const auto retained = retained_blocks(plan.base.layers, plan.removed);
  size_t next = 0;
  for (size_t g = 0; g < plan.groups.size(); ++g) {
    const auto& blocks = plan.groups[g].blocks;
    for (size_t i = 0; i < blocks.size(); ++i, ++next) {
      if (blocks[i] == retained[next]) continue;
      const JsonPath at = {"groups", number_of(g), "blocks", number_of(i)};
      if (i == 0) return fault(at, "block {} is out of order: block {} comes first", blocks[i], retained[next]);
      if (blocks[i] < blocks[i - 1])
        return fault(at, "block {} stands behind {}: they ascend", blocks[i], blocks[i - 1]);
      return fault(at, "group {} is not consecutive: block {} stands between {} and {}", g, retained[next],
                   blocks[i - 1], blocks[i]);
    }
  }
  return {};
}

bool lost(const FoldPlan& plan, int64_t block, BlockHalf part) {
  return std::binary_search(plan.removed_halves.begin(), plan.removed_halves.end(), RemovedHalf{block, part});
}

/// A parent and values that go together, and blocks of which the same is left.
Fault fault_of_group(const FoldPlan& plan, size_t g) {
  const FoldGroup& group = plan.groups[g];
  const JsonPath at = {"groups", number_of(g)};
  const bool is_mean = group.values == GroupValues::mean || group.values == GroupValues::wmean;
  if (group.blocks.size() == 1 && is_mean)
    return fault(at, "the {} of block {} alone is the block: leave \"values\" out", name_of(group.values),
                 group.blocks[0]);
  if (group.blocks.size() > 1 && group.values == GroupValues::trained)
    return fault(at, "trained weights are those of one block: group {} has {}", g, group.blocks.size());
  if (is_mean && group.parent)
    return fault(at, "group {} has weights of its own, the {}: it has no parent", g, name_of(group.values));
  if (!is_mean && !group.parent) return fault(at, "group {} names no parent", g);
  if (group.parent && std::find(group.blocks.begin(), group.blocks.end(), *group.parent) == group.blocks.end())
    return fault(at, "block {} is the parent of group {} and not in it", *group.parent, g);
  for (const int64_t block : group.blocks)
    for (const BlockHalf part : {BlockHalf::attention, BlockHalf::mlp})
      if (lost(plan, block, part) != lost(plan, group.blocks[0], part))
        return fault(at, "blocks {} and {} cannot share: one of them lost its {}", group.blocks[0], block,
                     name_of(part));
  return {};
}

Fault fault_of_child(const FoldChild& child) {
  const bool has_rank = child.level == ChildLevel::lora || child.level == ChildLevel::mos;
  if (has_rank ? 1 <= child.rank && child.rank <= kMostRank : child.rank == 0) return {};
  return fault({"child", "rank"}, "a child of level \"{}\" has rank {}, not {}", name_of(child.level),
               has_rank ? fmt::format("1 to {}", kMostRank) : "0", child.rank);
}

}  // namespace

Fault fault_of(const FoldPlan& plan) {
  if (plan.base.layers < 1 || plan.base.layers > kMostFoldLayers)
    return fault({"base", "layers"}, "{} layers; a plan is of 1 to {}", plan.base.layers, kMostFoldLayers);
  for (const auto check : {fault_of_removed, fault_of_halves, fault_of_membership, fault_of_order})
    if (Fault found = check(plan)) return found;
  for (size_t g = 0; g < plan.groups.size(); ++g)
    if (Fault found = fault_of_group(plan, g)) return found;
  return fault_of_child(plan.child);
}

Fault fault_beside(const FoldPlan& plan, const FoldBase& base) {
  if (plan.base.layers != base.layers)
    return fault({"base", "layers"}, "the plan is of {} layers, the model has {}", plan.base.layers, base.layers);
  if (plan.base.model_type != base.model_type)
    return fault({"base", "model_type"}, "the plan is of a \"{}\", the model is a \"{}\"", plan.base.model_type,
                 base.model_type);
  if (plan.base.fingerprint.empty() || base.fingerprint.empty() || plan.base.fingerprint == base.fingerprint) return {};
  PlanFault found =
      fault({"base", "fingerprint"}, "the plan was made for another model: fingerprint {}, this one has {}",
            plan.base.fingerprint, base.fingerprint);
  found.hint = "leave \"fingerprint\" out of the plan if it is meant for this model";
  return found;
}

void require_sound(const FoldPlan& plan, const FoldBase& base, const std::string& where) {
  Fault found = fault_of(plan);
  if (!found) found = fault_beside(plan, base);
  if (found) throw UserError(where, "fold: " + found->what, found->hint);
}

}  // namespace tessera
