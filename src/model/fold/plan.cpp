#include "model/fold/plan.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace tessera {
namespace {

constexpr std::string_view kHalves[] = {"attention", "mlp"};
constexpr std::string_view kValues[] = {"own", "mean", "wmean", "trained"};
constexpr std::string_view kLevels[] = {"tie", "norm", "scale", "lora", "mos"};

bool is_removed(const FoldPlan& plan, int64_t block, BlockHalf part) {
  return std::binary_search(plan.removed_halves.begin(), plan.removed_halves.end(), RemovedHalf{block, part});
}

std::string source_text(const FoldGroup& group, int64_t block) {
  switch (group.values) {
    case GroupValues::trained:
      return "trained weights";
    case GroupValues::mean:
    case GroupValues::wmean:
      return fmt::format("{} of blocks {} to {}", group.values == GroupValues::mean ? "mean" : "weighted mean",
                         group.blocks.front(), group.blocks.back());
    case GroupValues::own:
      break;
  }
  return group.parent == block ? "own weights" : fmt::format("weights of block {}", *group.parent);
}

}  // namespace

std::string_view name_of(BlockHalf part) { return kHalves[static_cast<size_t>(part)]; }
std::string_view name_of(GroupValues values) { return kValues[static_cast<size_t>(values)]; }
std::string_view name_of(ChildLevel level) { return kLevels[static_cast<size_t>(level)]; }

std::vector<VirtualLayer> virtual_layers(const FoldPlan& plan) {
  std::vector<VirtualLayer> layers;
  for (size_t g = 0; g < plan.groups.size(); ++g)
    for (const int64_t block : plan.groups[g].blocks)
      layers.push_back({.number = static_cast<int64_t>(layers.size()),
                        .original = block,
                        .group = static_cast<int64_t>(g),
                        .is_parent = plan.groups[g].parent == block,
                        .has_attention = !is_removed(plan, block, BlockHalf::attention),
                        .has_mlp = !is_removed(plan, block, BlockHalf::mlp)});
  return layers;
}

FoldPlan depth_plan(int64_t layers, int64_t stored, const std::string& model_type) {
  TS_CHECK(1 <= stored && stored <= layers, "{} blocks for {} layers", stored, layers);
  FoldPlan plan;
  plan.base = {.fingerprint = {}, .layers = layers, .model_type = model_type};
  plan.groups.resize(static_cast<size_t>(stored));
  for (int64_t l = 0; l < layers; ++l) {
    FoldGroup& group = plan.groups[static_cast<size_t>(l * stored / layers)];
    if (group.blocks.empty()) group.parent = l;
    group.blocks.push_back(l);
  }
  return plan;
}

FoldPlan identity_plan(const FoldBase& base) {
  FoldPlan plan = depth_plan(base.layers, base.layers, base.model_type);
  plan.base = base;
  return plan;
}

std::vector<int64_t> retained_blocks(int64_t layers, const std::vector<int64_t>& removed) {
  std::vector<int64_t> retained;
  for (int64_t block = 0; block < layers; ++block)
    if (!std::binary_search(removed.begin(), removed.end(), block)) retained.push_back(block);
  return retained;
}

std::string plan_text(const FoldPlan& plan) {
  const auto layers = virtual_layers(plan);
  const size_t width = std::to_string(plan.base.layers - 1).size();
  std::string text;
  size_t next = 0;
  for (int64_t block = 0; block < plan.base.layers; ++block) {
    text += fmt::format("block {:>{}}: ", block, width);
    if (next == layers.size() || layers[next].original != block) {
      text += "removed\n";
      continue;
    }
    const VirtualLayer& layer = layers[next++];
    text += fmt::format("layer {:>{}}, group {:>{}}, {}{}{}\n", layer.number, width, layer.group, width,
                        source_text(plan.groups[static_cast<size_t>(layer.group)], block),
                        layer.has_attention ? "" : ", no attention", layer.has_mlp ? "" : ", no mlp");
  }
  return text;
}

}  // namespace tessera
