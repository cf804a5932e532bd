#include "model/fold/plan.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {
namespace {

constexpr std::string_view kHalves[] = {"attention", "mlp"};
constexpr std::string_view kValues[] = {"own", "mean", "wmean", "trained"};
constexpr std::string_view kLevels[] = {"tie", "norm", "scale", "lora", "mos"};

bool is_removed(const FoldPlan& plan, int64_t block, BlockHalf part) {
  return std::binary_search(plan.removed_halves.begin(), plan.removed_halves.end(), RemovedHalf{block, part});
}

std::string source_text(const FoldGroup& group) {
  if (group.values == GroupValues::trained) return "trained weights";
  if (group.blocks.size() == 1) return "its own weights";
  if (group.parent) return fmt::format("weights of block {}", *group.parent);
  return group.values == GroupValues::mean ? "mean of their weights" : "weighted mean of their weights";
}

std::string group_text(const FoldPlan& plan, size_t index, int64_t first_number) {
  const FoldGroup& group = plan.groups[index];
  const auto count = static_cast<int64_t>(group.blocks.size());
  std::string blocks;
  for (const int64_t block : group.blocks) {
    blocks += fmt::format("{}{}", blocks.empty() ? "" : " ", block);
    for (const BlockHalf part : {BlockHalf::attention, BlockHalf::mlp})
      if (is_removed(plan, block, part)) blocks += fmt::format(" (no {})", name_of(part));
  }
  return fmt::format(
      "group {}: {} {}, {} {}: {}\n", index, count == 1 ? "layer" : "layers",
      count == 1 ? fmt::format("{}", first_number) : fmt::format("{}-{}", first_number, first_number + count - 1),
      count == 1 ? "block" : "blocks", blocks, source_text(group));
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
  std::string text;
  size_t next_removed = 0;
  int64_t number = 0;
  const auto tell_removed_below = [&](int64_t block) {
    for (; next_removed < plan.removed.size() && plan.removed[next_removed] < block; ++next_removed)
      text += fmt::format("removed: block {}\n", plan.removed[next_removed]);
  };
  for (size_t g = 0; g < plan.groups.size(); ++g) {
    tell_removed_below(plan.groups[g].blocks.front());
    text += group_text(plan, g, number);
    number += static_cast<int64_t>(plan.groups[g].blocks.size());
  }
  tell_removed_below(plan.base.layers);
  return text;
}

}  // namespace tessera
