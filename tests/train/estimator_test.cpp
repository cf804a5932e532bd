// What estimators ask of a recipe, and what they say of themselves.
// What every one of them keeps: every_estimator_test.cpp.

#include "train/estimator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "support/error_text.h"
#include "train/estimator_training.h"

namespace tessera {
namespace {

using test::EstimatorSections;
using test::EstimatorTraining;
using testing::HasSubstr;

std::string faults_of(const std::string& estimator, const std::string& toml) {
  return test::error_text([&] { EstimatorSections(estimator, toml); });
}

TEST(Estimators, HaveNamesAndSectionsOfTheirOwn) {
  std::map<std::string, int> names, sections;
  for (const std::string& name : estimator_names()) EXPECT_EQ(++names[name], 1) << name;
  const Estimators estimators;
  for (const auto& estimator : estimators.all())
    EXPECT_TRUE(estimator->section().empty() || ++sections[estimator->section()] == 1) << estimator->section();
  for (const EstimatorKind& kind : estimator_kinds()) EXPECT_FALSE(kind.help.empty()) << kind.name;
}

TEST(Estimators, RefuseWhatTheyCannotTrainWith) {
  const std::string no_clip = "[train]\nclip = 2.0\n",
                    layers = "[spsa]\nperturb = \"layers\"\n[adapter]\nmethod = \"lora\"";
  EXPECT_THAT(faults_of("spsa", no_clip), HasSubstr("train.clip bounds gradients, and SPSA has none"));
  EXPECT_EQ(faults_of("backprop", no_clip), test::kNothingThrown);
  EXPECT_THAT(faults_of("spsa", layers), HasSubstr("each trained for themselves"));
  EXPECT_EQ(faults_of("backprop", layers), test::kNothingThrown)
      << "a section that the recipe's estimator does not read";
  EXPECT_THAT(faults_of("spsa", "[spsa]\ntransport = \"file\"\nmachine = 3\nmachines = 3"),
              HasSubstr("machines are numbered 0 .. 2"));
  EXPECT_EQ(faults_of("spsa", "[spsa]\ntransport = \"mpi\"\nmachine = 3\nmachines = 3"), test::kNothingThrown)
      << "nobody reads these";
}

TEST(Estimators, RanksOfAJobDoNotShareAFolder) {
  const EstimatorSections sections("spsa", "[spsa]\ntransport = \"file\"\n");
  const Recipe recipe = Recipe::from_text("", "recipe.toml");
  EXPECT_NO_THROW(estimator_of(sections.trainer).check_ranks(recipe, 1));
  EXPECT_THROW(estimator_of(sections.trainer).check_ranks(recipe, 2), UserError);
}

TEST(Estimators, SetTheDefaultsThatAreOthersWithThem) {
  EXPECT_EQ(EstimatorSections("spsa", "").trainer.optimizer.momentum, 0);
  EXPECT_EQ(EstimatorSections("spsa", "[optimizer]\nmomentum = 0.5\n").trainer.optimizer.momentum, 0.5);
  EXPECT_EQ(EstimatorSections("backprop", "").trainer.optimizer.momentum, OptimizerConfig{}.momentum);
}

TEST(Estimators, CountRowsOverAllWhoTakePart) {
  const std::string batch = "[train]\nbatch = 6\n", probes = batch + "[spsa]\nprobes = 5\nmachines = 7\n";
  EXPECT_EQ(rows_per_step(EstimatorSections("backprop", batch).trainer, 3), 6);
  EXPECT_EQ(rows_per_step(EstimatorSections("spsa", probes).trainer, 3), 6 * 3 * 5);
  EXPECT_EQ(rows_per_step(EstimatorSections("spsa", probes + "sides = \"one\"\n").trainer, 3), 6 * 3);
  EXPECT_EQ(rows_per_step(EstimatorSections("spsa", probes + "transport = \"file\"\n").trainer, 1), 6 * 7 * 5);
}

TEST(Estimators, TellTheBytesThatARankSends) {
  test::OwnContext context;
  EstimatorTraining gradients("backprop", "lora");
  const auto a = gradients.model();
  gradients.steps(*a, 2, context.ctx);
  EXPECT_EQ(gradients.world().traffic().all_reduce.bytes, 2 * gradients.estimator().wire_bytes(*a));

  constexpr int64_t kOffer = 8;  // of machine 0
  EstimatorTraining votes("spsa", "lora", "[spsa]\nprobes = 5\nvotes = \"float32\"\n");
  const auto b = votes.model();
  for (const StepReport& report : votes.steps(*b, 2, context.ctx))
    EXPECT_EQ(report.extra.at("bytes_up").as_integer(), votes.estimator().wire_bytes(*b) + kOffer);
}

TEST(Estimators, AMachineAloneTrainsAlikeOverEveryTransport) {
  std::vector<std::string> values;
  for (const Transport& transport : transports()) {
    if (transport.is_loose()) continue;  // it needs a server: tests/cli/loose_nodes_test.cpp
    EstimatorTraining own("spsa", "lora", fmt::format("[spsa]\nprobes = 3\ntransport = \"{}\"\n", transport.name));
    values.push_back(own.train("run"));
    EXPECT_EQ(values.back(), values.front()) << transport.name;
    own.train("left", 2);
    EXPECT_EQ(own.train("left"), values.front()) << transport.name << ", left and gone on";
  }
}

TEST(Estimators, ARunThatSharesAFolderIsBegunAnewInOtherFolders) {
  const auto anew = [](const std::string& toml) {
    return estimator_of(EstimatorSections("spsa", toml).trainer).anew();
  };
  EXPECT_TRUE(anew("").by_resume);
  EXPECT_FALSE(anew("[spsa]\ntransport = \"file\"\n").by_resume);
  EXPECT_EQ(anew("[spsa]\ntransport = \"file\"\nshared = \"there\"\n").places, "run.dir and spsa.shared");
}

}  // namespace
}  // namespace tessera
