#pragma once
// Everything that a small training needs but the model.

#include <gtest/gtest.h>

#include "support/tiny_model.h"
#include "support/token_data.h"
#include "train/trainer.h"

namespace tessera::test {

/// Rows of 12 tokens, four a step, at a rate of 0.01.
class Training : public testing::Test {
 protected:
  explicit Training(int64_t documents = 20)
      : world_(self_communicator()), data_(token_data(documents, 12), 12, 1), report_(nullptr, Progress::none) {
    config_.train.batch = 4;
    config_.train.sequence_length = 12;
    config_.optimizer.lr = 1e-2;
  }
  TrainerInputs inputs(Model& model) {
    return {.config = config_, .model = model, .data = data_, .world = *world_, .ctx = own_.ctx, .report = report_};
  }

  TemporaryFolder folder_;
  OwnContext own_;
  std::unique_ptr<Communicator> world_;
  PackedDataset data_;
  Reporter report_;
  TrainerConfig config_;
};

}  // namespace tessera::test
