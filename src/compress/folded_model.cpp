#include "compress/folded_model.h"

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

FoldPlan widest_plan(const StageSizes& sizes) {
  Model& model = sizes.model;
  const FoldBase base{
      .fingerprint = {}, .layers = model.decoder().num_layers(), .model_type = model.base_config().family};
  if (!sizes.fold.plan.empty()) return read_fold_plan(sizes.fold.plan, base);
  FoldPlan plan = depth_plan(base.layers, (base.layers + sizes.fold.group - 1) / sizes.fold.group, base.model_type);
  plan.child = asked_child(sizes.fold);
  const ParentChoice parent = grouping_options(sizes.fold).parent;
  if (parent == ParentChoice::mean || parent == ParentChoice::wmean)
    for (FoldGroup& group : plan.groups) group.parent.reset(), group.values = GroupValues::mean;
  return plan;
}

FoldMaking counted_making(const StageSizes& sizes, const FoldPlan& plan) {
  FoldMaking making{.plan = plan, .state = {}};
  for (size_t number = 0; number < plan.groups.size(); ++number)
    for (const WeightSpec& spec : sizes.model.decoder().specs())
      if (!plan.groups[number].parent && spec.layer == plan.groups[number].blocks.front())
        making.starts[fmt::format("fold.group.{}.{}.weight", number, spec.type)] = [](TensorView) {};
  return making;
}

std::unique_ptr<Model> counted_model(const StageSizes& sizes, const FoldPlan& plan) {
  Model::Settings settings = folded_settings(sizes.model, counted_making(sizes, plan), 0);
  settings.memory = Memory::counted;
  return std::make_unique<Model>(settings);
}

}  // namespace tessera
