#pragma once
// What --check looks at beyond recipe and plan: that the job will not stop at the first thing it reads.

#include "cli/jobs.h"

namespace tessera {

/// Reads what the job reads first, on rank 0: a training's run folder, which the recipe has to fit; tokenizer and the
/// first documents of the data, prepared as the job will prepare them. Nothing is written.
/// A fault further back in large data shows when the job reads it.
/// @param model  whose vocabulary the tokens must fit; null: of a job without a model
/// @throws UserError as the job would
void preflight(const JobInputs&, const Model* model);

}  // namespace tessera
