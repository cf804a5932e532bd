#include "train/steps.h"

#include <algorithm>
#include <cmath>

#include "core/decimal.h"
#include "train/estimator.h"

namespace tessera {

int64_t rows_per_step(const TrainerConfig& config, int shares) {
  return estimator_of(config).rows_per_step(config.train, shares);
}

int64_t total_steps(const TrainerConfig& config, const PackedDataset& data, int shares, Rules rules) {
  if (config.train.steps) return *config.train.steps;
  const double epochs = config.train.epochs.value_or(1.0);
  const int64_t rows = rows_per_step(config, shares);
  // Decimals are taken exactly: a product of doubles that comes out a little above a whole number would be a step more.
  // The first rules keep the doubles, so that runs that began with them go on with their steps.
  if (rules != Rules::first) return ceil_of_share(epochs, data.rows(), rows);
  return static_cast<int64_t>(
      std::min(std::ceil(epochs * (static_cast<double>(data.rows()) / static_cast<double>(rows))), 0x1p62));
}

int64_t total_steps(const TrainerInputs& in) { return total_steps(in.config, in.data, in.share.count, in.rules); }

int64_t micro_batch_rows(const TrainConfig& config, int shares) {
  // Shares differ by a row where the batch does not divide: a pass is never longer than the longest.
  const int64_t largest_share = (config.batch + shares - 1) / shares;
  const int64_t wanted =
      config.micro_batch > 0 ? config.micro_batch : std::max<int64_t>(1, 512 / config.sequence_length);
  return std::min(wanted, largest_share);
}

}  // namespace tessera
