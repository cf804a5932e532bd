#pragma once
// A folded model beside its original: frozen weights that both have lie in one mapped file.

#include "compress/stages.h"
#include "model/sharing/fold.h"

namespace tessera {

/// Settings of a folded model that reads the frozen weights of its original where they are mapped: its positions,
/// types and device, without memory for gradients.
Model::Settings folded_settings(Model& original, FoldMaking making, uint64_t seed);

/// For plans, before there is one: the plan of the user's, or one that holds as much as any, all blocks in runs of
/// fold.group.
FoldPlan widest_plan(const StageSizes&);

/// How a folded model of that plan is made where it is only laid out: means and a trained block have a place, and
/// nothing is written into it.
FoldMaking counted_making(const StageSizes&, const FoldPlan&);
/// The folded model of that plan, laid out and frozen.
std::unique_ptr<Model> counted_model(const StageSizes&, const FoldPlan&);

}  // namespace tessera
