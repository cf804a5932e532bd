#include "compress/folded_model.h"

#include <algorithm>

#include "compress/grouping_keys.h"
#include "model/fold/plan_file.h"

namespace tessera {

Model::Settings folded_settings(Model& original, FoldMaking making, uint64_t seed) {
  Model::Settings settings;
  settings.model = original.options();
  settings.sharing.method = "fold";
  settings.sharing.making = std::make_shared<const FoldMaking>(std::move(making));
  settings.gradients = false;
  settings.max_position = original.decoder().max_position();
  settings.seed = seed;
  settings.where_sharing = "fold";
  settings.parameters = settings.activations = original.decoder().activations();
  settings.check_seal = false;  // the original's has been
  settings.device = original.pool().device();
  settings.source = original.source();
  return settings;
}

namespace {

/// All blocks in runs of fold.group. One that is trained in place of a run shares with nobody.
FoldPlan in_runs(const FoldBase& base, const FoldConfig& fold) {
  FoldPlan plan;
  plan.base = base;
  const int64_t trained = fold.replace == "none" ? -1 : std::min(fold.protect_head, base.layers - 1);
  for (int64_t block = 0; block < base.layers; ++block) {
    const bool begins = plan.groups.empty() || plan.groups.back().values == GroupValues::trained ||
                        static_cast<int64_t>(plan.groups.back().blocks.size()) == fold.group;
    if (block == trained)
      plan.groups.push_back({.blocks = {block}, .parent = block, .values = GroupValues::trained});
    else if (begins)
      plan.groups.push_back({.blocks = {block}, .parent = block, .values = GroupValues::own});
    else
      plan.groups.back().blocks.push_back(block);
  }
  return plan;
}

/// The slot of a folded model that holds a tensor of the original's block.
std::string slot_of(const WeightSpec& spec, const VirtualLayer& layer) {
  if (spec.role == Role::linear) return fmt::format("fold.group.{}.{}.weight", layer.group, spec.type);
  return fmt::format("fold.layer.{}.{}.{}", layer.number, spec.type, spec.role == Role::bias ? "bias" : "weight");
}

}  // namespace

FoldPlan widest_plan(const StageSizes& sizes) {
  Model& model = sizes.model;
  const FoldBase base{
      .fingerprint = {}, .layers = model.decoder().num_layers(), .model_type = model.base_config().family};
  if (!sizes.fold.plan.empty()) return read_fold_plan(sizes.fold.plan, base);
  FoldPlan plan = in_runs(base, sizes.fold);
  plan.child = asked_child(sizes.fold);
  const ParentChoice parent = grouping_options(sizes.fold).parent;
  if (parent == ParentChoice::mean || parent == ParentChoice::wmean)
    for (FoldGroup& group : plan.groups)
      if (group.blocks.size() > 1) group.parent.reset(), group.values = GroupValues::mean;
  return plan;
}

FoldMaking counted_making(const StageSizes& sizes, const FoldPlan& plan) {
  FoldMaking making{.plan = plan, .state = {}, .is_assumed = sizes.fold.plan.empty()};
  for (const VirtualLayer& layer : virtual_layers(plan)) {
    const FoldGroup& group = plan.groups[static_cast<size_t>(layer.group)];
    const bool is_trained = group.values == GroupValues::trained;
    for (const WeightSpec& spec : sizes.model.decoder().specs())
      if (spec.layer == layer.original && (is_trained || (!group.parent && spec.role == Role::linear)))
        making.starts[slot_of(spec, layer)] = [](TensorView) {};
  }
  return making;
}

std::unique_ptr<Model> counted_model(const StageSizes& sizes, const FoldPlan& plan) {
  Model::Settings settings = folded_settings(sizes.model, counted_making(sizes, plan), 0);
  settings.memory = Memory::counted;
  return std::make_unique<Model>(settings);
}

}  // namespace tessera
