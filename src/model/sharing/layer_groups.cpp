#include "model/sharing/layer_groups.h"

#include <tuple>

#include "core/error.h"
#include "model/sharing/binding.h"

namespace tessera {

LayerGroups LayerGroups::of(const FoldPlan& plan) {
  LayerGroups groups;
  groups.shares_vectors = plan.child.level == ChildLevel::tie;
  for (const FoldGroup& group : plan.groups) {
    const auto first = static_cast<int>(groups.keeper.size());
    int keeper = first;
    for (size_t i = 0; i < group.blocks.size(); ++i)
      if (group.parent == group.blocks[i]) keeper = first + static_cast<int>(i);
    groups.keeper.resize(groups.keeper.size() + group.blocks.size(), keeper);
  }
  return groups;
}

std::vector<Weight> GroupedWeights::bind(std::span<const WeightSpec> specs, const ParameterPool& pool,
                                         const BaseOptions& options, const SlotName& name, const BindSlot& bind) {
  std::map<std::tuple<int, std::string, Role>, const WeightSpec*> in_blocks;
  for (const WeightSpec& spec : specs)
    if (spec.layer >= 0) in_blocks[{spec.layer, spec.type, spec.role}] = &spec;
  std::map<std::string, SlotId> slots;
  std::vector<Weight> weights;
  for (const WeightSpec& spec : specs) {
    const bool is_kept = spec.layer >= 0 && (spec.role == Role::linear || groups_.shares_vectors);
    const WeightSpec& kept =
        is_kept ? *in_blocks.at({groups_.keeper[static_cast<size_t>(spec.layer)], spec.type, spec.role}) : spec;
    TS_CHECK(kept.shape == spec.shape, "{} is {}, {} is {}", spec.name, spec.shape.text(), kept.name,
             kept.shape.text());
    if (!groups_.is_assumed) require_trained_alike(spec, kept, options);
    const std::string slot = name(kept);
    auto found = slots.find(slot);
    if (found == slots.end()) {
      found = slots.emplace(slot, bind(slot, kept)).first;
      held_ += kept.shape.count();
    }
    if (spec.storage == spec.name) weights_ += spec.shape.count();
    readers_[slot].push_back(spec.layer);
    weights.push_back({std::make_shared<SliceView>(pool, found->second, spec.shape)});
  }
  return weights;
}

void GroupedWeights::require_trained_alike(const WeightSpec& spec, const WeightSpec& kept,
                                           const BaseOptions& options) const {
  if (is_trained(spec, options) == is_trained(kept, options)) return;
  const bool kept_first = kept.layer < spec.layer;
  throw UserError(options.where_freeze,
                  fmt::format("{}: of '{}' and '{}', which are one, train.freeze names one", method_,
                              (kept_first ? kept : spec).storage, (kept_first ? spec : kept).storage),
                  "freeze both, or none");
}

std::span<const int> GroupedWeights::readers(const std::string& slot) const {
  const auto found = readers_.find(slot);
  return found == readers_.end() ? std::span<const int>() : std::span<const int>(found->second);
}

}  // namespace tessera
