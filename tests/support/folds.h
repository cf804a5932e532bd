#pragma once
// Small models to fold: plans by hand, dense models in folders, and the same models with nothing shared.

#include "io/files.h"
#include "kernels/table.h"
#include "model/export.h"
#include "model/sharing/fold.h"
#include "support/tiny_model.h"

namespace tessera::test {

struct PlanByHand {
  int64_t layers = 0;
  std::vector<int64_t> removed{};
  std::vector<FoldGroup> groups{};
  FoldChild child{};
};

/// A group whose weights are the parent's own.
inline FoldGroup group_of(std::vector<int64_t> blocks, std::optional<int64_t> parent = {}) {
  const int64_t own = parent.value_or(blocks.front());
  return {.blocks = std::move(blocks), .parent = own};
}

inline FoldPlan fold_plan(const PlanByHand& hand) {
  FoldPlan plan;
  plan.base = {.fingerprint = {}, .layers = hand.layers, .model_type = "llama"};
  plan.removed = hand.removed;
  plan.groups = hand.groups;
  plan.child = hand.child;
  return plan;
}

/// Six layers of which five are left: 0 | 2 3 4, parent 3 | 5.
inline FoldPlan six_layers(FoldChild child = {}) {
  return fold_plan({6, {1}, {group_of({0}), group_of({2, 3, 4}, 3), group_of({5})}, child});
}

/// Six layers of which five are left, two of them one block without its MLP, another without attention:
/// 0 | 2 3 without their MLP, parent 3 | 4 without attention | 5.
inline FoldPlan halved_layers(FoldChild child = {}) {
  FoldPlan plan = fold_plan({6, {1}, {group_of({0}), group_of({2, 3}, 3), group_of({4}), group_of({5})}, child});
  plan.removed_halves = {{2, BlockHalf::mlp}, {3, BlockHalf::mlp}, {4, BlockHalf::attention}};
  return plan;
}

/// A plan for a model of any depth, for tests of what all ways to share weights have in common: the second of three
/// layers or more is removed, the others read the last.
inline FoldPlan any_fold_plan(int64_t layers) {
  PlanByHand hand{.layers = layers, .child = {ChildLevel::lora, 2}};
  if (layers > 2) hand.removed = {1};
  hand.groups = {{.blocks = retained_blocks(layers, hand.removed), .parent = layers - 1}};
  return fold_plan(hand);
}

/// Makes the settings those of a folded model of what model.path and model.init say.
inline void fold_by(FoldMaking making, Model::Settings& settings) {
  settings.sharing.method = "fold";
  settings.sharing.making = std::make_shared<const FoldMaking>(std::move(making));
}

/// A dense model drawn at random, in a Hugging Face folder.
inline std::filesystem::path dense_folder(const std::filesystem::path& folder, const TinyConfig& config) {
  OwnContext own;
  std::filesystem::create_directories(folder / "drawn");
  Model model(tiny_settings(folder / "drawn", config));
  for (SlotId slot = 0; slot < model.pool().count(); ++slot)  // norms are drawn as ones, which all layers would share
    if (model.pool().name(slot).find("norm") != std::string::npos) {
      fill_normal(model.pool().mutable_values(slot), static_cast<uint32_t>(slot), 0.2);
      for (float& gain : model.pool().mutable_values(slot).as<float>()) gain += 1;
    }
  export_merged(folder / "dense", model, folder / "drawn", own.ctx);
  return folder / "dense";
}

inline Model::Settings stored_settings(const std::filesystem::path& dense) {
  Model::Settings settings;
  settings.model.path = dense;
  settings.max_position = 64;
  settings.where_sharing = "recipe.toml:3:1";
  return settings;
}

/// The folder of the dense model that computes what a plan of level "norm" says: layer v has the linears of its
/// group's parent and its own norms.
inline std::filesystem::path unfolded_twin(const std::filesystem::path& dense, const FoldPlan& plan,
                                           const std::filesystem::path& folder) {
  const auto reader = SafetensorsReader::open_folder(dense);
  const ModelConfig base = read_model_config(dense / "config.json");
  std::vector<BaseLayer> layers;
  for (const VirtualLayer& layer : virtual_layers(plan)) layers.push_back({static_cast<int>(layer.original)});
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (const WeightSpec& spec : weight_specs(base, layers)) {
    if (spec.storage != spec.name) continue;
    std::string name = spec.name_in_files();
    if (spec.role == Role::linear && spec.layer >= 0) {
      const auto group = static_cast<size_t>(virtual_layers(plan)[static_cast<size_t>(spec.layer)].group);
      name = fmt::format("model.layers.{}.{}.weight", *plan.groups[group].parent, spec.type);
    }
    tensors.emplace_back(spec.name, reader.at(name));
  }
  std::filesystem::create_directories(folder);
  write_file(folder / "config.json", config_of_layers(base, layers).source.dump(2));
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  return folder;
}

}  // namespace tessera::test
