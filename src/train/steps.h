#pragma once
// How long a training is: rows of a step and of a pass, steps of a run.

#include "data/packed_dataset.h"
#include "train/trainer_inputs.h"

namespace tessera {

/// Rows that one step takes of the data, over all who take part: the estimator's word.
/// @param shares  that the data is split into: DataShare::count
int64_t rows_per_step(const TrainerConfig&, int shares);

/// Steps a run takes: train.steps, or train.epochs over the rows, rounded up.
int64_t total_steps(const TrainerConfig&, const PackedDataset&, int shares, Rules = kNewestRules);
int64_t total_steps(const TrainerInputs&);

/// Rows of one pass of a rank: train.micro_batch, or about 512 tokens, no more than the largest share of a batch.
int64_t micro_batch_rows(const TrainConfig&, int shares);

}  // namespace tessera
