#pragma once
// How a recipe sets up its model, the same for every job.

#include <string>

#include "cli/jobs.h"
#include "kernels/compute.h"

namespace tessera {

/// Of the recipe's model with its sharing and its adapter, untrained.
/// @param max_position  tokens of the longest row
Model::Settings model_settings(const JobInputs&, int64_t max_position);

/// [run]: where the job computes.
Compute::Choice compute_choice(const JobInputs&);

/// What deserves a word when `what` ("rows") has more tokens than the model was trained on; empty otherwise.
std::string length_notice(const Model&, const std::string& what, int64_t tokens);

}  // namespace tessera
