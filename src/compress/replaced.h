#pragma once
// One trained block in place of a run of consecutive ones. Stage "replace" trains it; here is what the stages behind it
// take from there: which run it stands for, the block's numbers, and the model that reads them.

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "compress/child_starts.h"
#include "compress/stages.h"

namespace tessera {

/// In RUN/compress.
constexpr std::string_view kTrainedBlock = "replace.safetensors";

/// Blocks first .. end - 1 of the original. The trained block has the shape of the first one and takes its place, the
/// others are removed.
struct ReplacedRun {
  int64_t first = 0, end = 0;
  int64_t length() const { return end - first; }
};

/// The run whose first block stands where removed.json's blocks do not; none where nothing is removed.
std::optional<ReplacedRun> run_of(const Json& removed);
/// The run that a trained block stands for by the recipe; none without fold.replace. The same on every rank.
std::optional<ReplacedRun> replaced_run(const StageInputs&);

/// Every retained block by itself, the first of the run with trained weights.
FoldPlan replaced_plan(Model& original, const ReplacedRun&);

/// The block's tensors, f32, by the names of their slots without a number: "fold.group.mlp.down_proj.weight",
/// "fold.layer.input_layernorm.weight".
using BlockTensors = std::map<std::string, std::shared_ptr<const Tensor>>;

/// compress/replace.safetensors holds them. Only rank 0 writes. @param model  of replaced_plan
void write_trained_block(const StageInputs&, Model& model);
/// The same on every rank. @throws UserError on every rank, naming the file
BlockTensors read_trained_block(const StageInputs&, const ReplacedRun&);

/// First values of the trained group of a plan.
void add_trained_starts(const FoldPlan&, const BlockTensors&, SlotStarts&);

/// The folded model of replaced_plan.
/// @param starts  of the trained block, or none: it begins as the first block of the run
/// @param trained  its trained block has f32 values and gradients; else all is frozen
std::unique_ptr<Model> replaced_model(Model& original, const ReplacedRun&, SlotStarts starts, bool trained,
                                      Memory memory = Memory::held);
/// The model that stage "replace" has left, frozen; null without one.
std::unique_ptr<Model> trained_model(const StageInputs&);

}  // namespace tessera
