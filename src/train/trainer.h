#pragma once
// The training loop: batch -> gradients -> reduce -> finite check -> clip -> optimizer -> metrics -> evaluate? -> checkpoint?

#include <functional>
#include <vector>

#include "comm/communicator.h"
#include "core/stop.h"
#include "data/packed_dataset.h"
#include "model/model.h"
#include "train/checkpoint.h"
#include "train/reporter.h"
#include "train/spsa/spsa_config.h"

namespace tessera {

struct TrainerConfig {
  TrainConfig train;
  OptimizerConfig optimizer;
  CheckpointConfig checkpoint;
  EvaluateConfig evaluate;
  LogConfig log;
  SpsaConfig spsa;
};

struct SpsaInputs;

/// What the loop works on; everything outlives it.
struct TrainerInputs {
  const TrainerConfig& config;
  Model& model;
  const PackedDataset& data;
  const PackedDataset* eval = nullptr;  // no evaluation
  Communicator& world;
  const Context& ctx;
  Reporter& report;
  const RunFolder* folder = nullptr;                          // rank 0 only
  std::vector<std::pair<std::string, std::string>> recipe{};  // stored in checkpoints
  std::string base_fingerprint{};                             // stored in checkpoints: Model::start_fingerprint
  std::string start_values{};                                 // stored in checkpoints: values_hash before step 1
  std::filesystem::path resume_from{};                        // a checkpoint file, or empty
  std::function<bool()> stop_requested{};                     // asked in each step and evaluation, on every rank
  std::filesystem::path run_path{};                           // the run's folder, on every rank
  const SpsaInputs* spsa = nullptr;                           // train.estimator = "spsa"
  Rules rules = kNewestRules;                                 // of the run, as it began
};

struct TrainOutcome {
  CheckpointMeta meta;   // as of the last step done
  bool stopped = false;  // by a signal, before the last step
};

/// Rows that one step takes: train.batch, over all ranks; with SPSA that many for each probe, over all probes of all machines.
int64_t rows_per_step(const TrainerConfig&, int ranks);

/// Steps a run takes: train.steps, or train.epochs over the rows, rounded up.
int64_t total_steps(const TrainerConfig&, const PackedDataset&, int ranks, Rules = kNewestRules);
int64_t total_steps(const TrainerInputs&);

/// Rows of one pass of a rank: train.micro_batch, or about 512 tokens, no more than the rank's largest share.
int64_t micro_batch_rows(const TrainConfig&, int ranks);

/// Trains to the last step, or until a stop is asked for: a step is finished, an evaluation is left between two batches and made when
/// the run goes on; a checkpoint of the last step that was done is left.
/// The loss of a step is the summed loss over the scored tokens of the global batch divided by their global count.
/// @throws UserError when a loss or gradient is not finite: the step is not taken, the message names what broke
TrainOutcome run_training(const TrainerInputs&);

}  // namespace tessera
