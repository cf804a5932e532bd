#pragma once
// Ranks of one job work on the same data and the same numbers, which is checked before the first step.

#include "cli/datasets.h"

namespace tessera {

/// Refuses, on every rank, a job whose ranks disagree on data or parameters.
void require_agreement(const JobInputs&, Model&, const Datasets&);
/// The same of the model alone.
void require_agreement(const JobInputs&, Model&);

}  // namespace tessera
