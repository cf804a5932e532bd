#pragma once
// How a folded model is made of the original and a plan: what stage "share" does, and what the report does again for
// the points that the model has passed.

#include "compress/child_starts.h"
#include "compress/stages.h"
#include "model/fold/plan.h"

namespace tessera {

/// The user's plan, or that of stage "group"; the same on every rank. @throws UserError when it does not fit the model
FoldPlan asked_plan(const StageInputs&);

bool has_shared(const FoldPlan&);   // whether two layers read one block
bool has_removed(const FoldPlan&);  // whether a block or a half is gone

/// What the folded model's own numbers begin with, the same on every rank.
/// @param tokens  += those of the calibration rows, where they were read
/// @throws Stopped on every rank
SlotStarts starts_of(const StageInputs&, const FoldPlan&, int64_t& tokens);

/// Bytes that making a folded model takes beside the original and the arena. @param folded  of that plan, laid out
int64_t folded_bytes_held(const StageSizes&, const FoldPlan&, Model& folded);

}  // namespace tessera
