#pragma once
// One-byte SPSA among the estimators.

#include "train/estimator.h"
#include "train/spsa/spsa_config.h"

namespace tessera {

/// [spsa] of a recipe, whichever estimator it trains with.
const SpsaConfig& spsa_config(const TrainerConfig&);

/// Adds a fault for what of the method itself does not go together: of votes, directions, optimizer and model. How the
/// machines of a run find each other is another matter.
void check_spsa_method(Recipe&, const SpsaConfig&, const RecipeParts&);

/// A process among those that take part: as its job counts it, and as [spsa] does.
Standing standing_of(const SpsaConfig&, const DataShare&);

/// Bytes of a replica's state beside its values: moments, or the sums of a pool of directions.
int64_t replica_state_bytes(const SpsaConfig&, const OptimizerConfig&, int64_t count);

}  // namespace tessera
