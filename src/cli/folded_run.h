#pragma once
// What job = "compress" has left in a run's folder, for the other jobs that are asked for with that folder.

#include <filesystem>
#include <string>

#include "cli/jobs.h"

namespace tessera {

/// Lets a job that works with what a training left work with the folded model of a compression: where run.dir holds
/// one, with RUN/sharing, as if sharing.load and adapter.method = "none" were given; where sharing.load names it,
/// without the recipe's adapter if that is the one which its cure has made part of the model.
/// @return a line that says so; empty where nothing is changed
std::string take_folded_model(const Recipe&, JobConfig&);

/// @throws UserError where run.dir holds a compression that has left no folded model yet: the original would be taken
/// in its name
void require_folded_model(const JobInputs&);

/// @param run  the folder that a training would write to
/// @throws UserError where it holds a compression, whose recipe, records and model would be written over
void refuse_training_into_compression(const JobInputs&, const std::filesystem::path& run);

}  // namespace tessera
