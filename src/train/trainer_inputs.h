#pragma once
// What a training is given: its settings, and what it works on.
// The loop, the steppers and the estimators read the same.

#include <functional>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "core/rules.h"
#include "data/packed_dataset.h"
#include "model/model.h"
#include "train/reporter.h"
#include "train/train_config.h"

namespace tessera {

class Estimator;
class TrainedLoss;

/// One of each estimator that there is, with the settings of its section;
/// every one has them, though a training uses one.
class Estimators {
 public:
  Estimators();
  Estimators(Estimators&&) noexcept;
  Estimators& operator=(Estimators&&) noexcept;
  ~Estimators();

  const std::vector<std::unique_ptr<Estimator>>& all() const { return all_; }  // in the registry's order
  const Estimator& named(std::string_view name) const;

 private:
  std::vector<std::unique_ptr<Estimator>> all_;
};

/// The sections of a recipe that a training reads, whichever estimator it has.
struct TrainerConfig {
  TrainConfig train;
  OptimizerConfig optimizer;
  CheckpointConfig checkpoint;
  EvaluateConfig evaluate;
  LogConfig log;
  Estimators estimators;
};

/// What an estimator needs beside the inputs of every training,
/// made before it begins by those who know the run's folders.
struct Preparation {
  virtual ~Preparation() = default;
};

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
  const Preparation* prepared = nullptr;                      // for estimators that have one
  Rules rules = kNewestRules;                                 // of the run, as it began
  DataShare share{};                                          // of the rows, this rank's
  // Of a training that is a part of another job; only estimators with backward passes know them.
  const TrainedLoss* loss = nullptr;    // what is lowered; null: the objective of the recipe
  int64_t first_row = 0;                // of the shuffled order, that the first step takes
  std::filesystem::path checkpoints{};  // folder of checkpoints, of rank 0; empty: that of the run
  std::string way_out{};                // of losses that are not finite, as a hint; empty: the estimator's
};

}  // namespace tessera
