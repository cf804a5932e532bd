#include "compress/replaced.h"

#include <algorithm>

#include "comm/from_root.h"
#include "compress/folded_model.h"
#include "core/device/memory.h"
#include "core/error.h"
#include "io/files.h"
#include "io/safetensors.h"
#include "train/send_numbers.h"

namespace tessera {
namespace {

constexpr std::string_view kGroup = "fold.group.", kLayer = "fold.layer.";

/// "fold.group.mlp.down_proj.weight" of the trained group's number, "fold.layer.<norm>.weight" of its layer's.
std::string with_number(const std::string& name, const VirtualLayer& layer) {
  const bool is_group = name.starts_with(kGroup);
  const std::string_view kind = is_group ? kGroup : kLayer;
  return fmt::format("{}{}.{}", kind, is_group ? layer.group : layer.number, name.substr(kind.size()));
}

/// Of the tensors of a block, as BlockTensors has them.
std::string slot_of(const WeightSpec& spec) {
  return fmt::format("{}{}.{}", spec.role == Role::linear ? kGroup : kLayer, spec.type,
                     spec.role == Role::bias ? "bias" : "weight");
}

template <class F> void for_each_tensor(Model& model, int64_t layer, F&& f) {
  const auto& specs = model.decoder().specs();
  for (size_t i = 0; i < specs.size(); ++i)
    if (specs[i].layer == layer) f(specs[i], static_cast<int>(i));
}

bool is_trained(const FoldPlan& plan, const VirtualLayer& layer) {
  return plan.groups[static_cast<size_t>(layer.group)].values == GroupValues::trained;
}

}  // namespace

std::optional<ReplacedRun> run_of(const Json& removed) {
  const auto& blocks = removed.at("removed").items();
  if (blocks.empty()) return std::nullopt;
  const ReplacedRun run{blocks.front().as_integer() - 1, blocks.back().as_integer() + 1};
  TS_CHECK(run.length() == static_cast<int64_t>(blocks.size()) + 1, "{} removed blocks are no run of {}", blocks.size(),
           run.length());
  return run;
}

std::optional<ReplacedRun> replaced_run(const StageInputs& in) {
  if (in.fold.replace == "none" || !in.fold.plan.empty()) return std::nullopt;
  return run_of(file_of_stage(in, "remove"));
}

FoldPlan replaced_plan(Model& original, const ReplacedRun& run) {
  FoldPlan plan;
  plan.base = {
      .fingerprint = {}, .layers = original.decoder().num_layers(), .model_type = original.base_config().family};
  for (int64_t block = run.first + 1; block < run.end; ++block) plan.removed.push_back(block);
  for (const int64_t block : retained_blocks(plan.base.layers, plan.removed))
    plan.groups.push_back({{block}, block, block == run.first ? GroupValues::trained : GroupValues::own});
  return plan;
}

void write_trained_block(const StageInputs& in, Model& model) {
  if (!in.is_root()) return;
  std::vector<std::pair<std::string, ConstView>> tensors;
  const FoldPlan& plan = folded_base(model.sharing())->plan();
  for (const VirtualLayer& layer : virtual_layers(plan))
    if (is_trained(plan, layer))
      for_each_tensor(model, layer.number, [&](const WeightSpec& spec, int number) {
        tensors.emplace_back(slot_of(spec), model.decoder().weight(number)->direct({&model.pool()}));
      });
  write_safetensors(in.folder / kTrainedBlock, tensors);
}

BlockTensors read_trained_block(const StageInputs& in, const ReplacedRun& run) {
  std::map<std::string, std::shared_ptr<Tensor>> block;
  for_each_tensor(in.model, run.first, [&](const WeightSpec& spec, int) {
    block[slot_of(spec)] = std::make_shared<Tensor>(spec.shape, DType::f32);
  });
  const auto file = in.folder / kTrainedBlock;
  from_root(in.world, [&] {
    const SafetensorsReader saved = SafetensorsReader::open(file);
    for (const auto& [name, tensor] : block) {
      const ConstView values = saved.at(name);
      if (!(values.shape == tensor->shape()) || values.dtype != DType::f32)
        throw UserError(file.string(),
                        fmt::format("\"{}\" is {} {}, expected f32 {}", name, name_of(values.dtype),
                                    values.shape.text(), tensor->shape().text()),
                        "remove it: the stage is run again");
      copy(values, *tensor);
    }
    return "";
  });
  for (const auto& [name, tensor] : block) send_numbers(in.world, *tensor);
  return {block.begin(), block.end()};
}

void add_trained_starts(const FoldPlan& plan, const BlockTensors& block, SlotStarts& starts) {
  for (const VirtualLayer& layer : virtual_layers(plan))
    if (is_trained(plan, layer))
      for (const auto& [name, tensor] : block) starts[with_number(name, layer)] = start_from(tensor);
}

std::unique_ptr<Model> replaced_model(Model& original, const ReplacedRun& run, SlotStarts starts, bool trained,
                                      Memory memory) {
  FoldMaking making{.plan = replaced_plan(original, run), .state = {}, .training = FoldTraining::replaced};
  making.starts = std::move(starts);
  if (!original.source() && memory == Memory::held) add_drawn_starts(original, making.plan, making.starts);
  Model::Settings settings = folded_settings(original, std::move(making), 0);
  settings.train_base = settings.gradients = trained;
  settings.memory = memory;
  return std::make_unique<Model>(settings);
}

std::unique_ptr<Model> trained_model(const StageInputs& in) {
  const auto run = replaced_run(in);
  if (!run) return nullptr;
  SlotStarts starts;
  add_trained_starts(replaced_plan(in.model, *run), read_trained_block(in, *run), starts);
  return replaced_model(in.model, *run, std::move(starts), false);
}

}  // namespace tessera
