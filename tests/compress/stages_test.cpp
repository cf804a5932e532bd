// What stages read of the recipe: no key that decides what they leave is forgotten.

#include "compress/stages.h"

#include <gmock/gmock.h>

#include <set>

#include "model/sharing/adapter.h"

namespace tessera {
namespace {

std::set<std::string> read_by(std::string_view stage) {
  const auto& keys = find_stage(stage).keys;
  return {keys.begin(), keys.end()};
}

template <class Config> std::vector<Field> fields_of(Config config) {
  Fields fields;
  config.visit(fields);
  return fields.list;
}

TEST(Stages, TheCureReadsWhatATrainingComparesWhenItGoesOn) {
  const std::set<std::string> read = read_by("cure");
  // The job takes one value of these alone.
  const std::set<std::string> fixed = {"adapter.load", "train.epochs", "train.estimator"};
  const auto expect_read = [&](const std::string& section, const std::vector<Field>& fields) {
    for (const Field& field : fields) {
      const std::string key = section + "." + field.key;
      const bool is_compared = field.on_resume != OnResume::free && !fixed.count(key);
      EXPECT_EQ(read.count(key) > 0, is_compared) << key;
    }
  };
  expect_read("adapter", fields_of(AdapterConfig()));
  expect_read("optimizer", fields_of(OptimizerConfig()));
  expect_read("train", fields_of(TrainConfig()));
  EXPECT_EQ(find_stage("cure").longer, "train.steps");
}

TEST(Stages, EveryKeyOfFoldIsReadByAStageOrByTheJob) {
  FoldConfig gates, replaced;
  replaced.selector = "run";
  replaced.replace = "both";
  std::set<std::string> read;
  for (const FoldConfig& fold : {gates, replaced})
    for (const std::string& key : keys_that_are_read(fold, "fold")) read.insert(key);
  for (const Field& field : fields_of(FoldConfig())) EXPECT_TRUE(read.count(field.key)) << field.key;
}

/// What says whether a stage is run is read by one behind it that is: a finished run tells it when it changes.
TEST(Stages, TheReportReadsWhetherThereIsACure) { EXPECT_TRUE(read_by("report").count("fold.cure")); }

}  // namespace
}  // namespace tessera
