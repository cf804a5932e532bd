// Folders of results as they stand on disk: who evaluates them, and whose figures a run tells.

#include "cli/written.h"

#include <gtest/gtest.h>

#include "comm/pretended_ranks.h"
#include "model/export.h"
#include "score/evaluate.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

/// Two ranks on two nodes: none sees what the other does.
class TwoNodes : public test::PretendedRanks {
 public:
  explicit TwoNodes(int rank) : PretendedRanks({"", ""}), rank_(rank) {}
  int rank() const override { return rank_; }
  int local_size() const override { return 1; }
  void broadcast(std::vector<std::byte>&, int) override { ADD_FAILURE() << "the other node was asked"; }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    ADD_FAILURE() << "the other node was asked";
    return PretendedRanks::all_gather(mine);
  }

 private:
  int rank_;
};

class WrittenFolder : public testing::Test {
 protected:
  WrittenFolder() : eval_(documents(), 12, 0) {
    std::filesystem::create_directories(folder_ / "base");
    config_.trainer.train.sequence_length = 12;
    config_.trainer.train.batch = 4;
    Model::Settings settings = test::tiny_settings(folder_ / "base");
    settings.train_base = true;
    settings.model.dtype = "bf16";
    Model model(settings);
    is_exact_ = export_merged(folder_ / "model", model, "", own_.ctx);
    trained_ = evaluate(own_.ctx, model, eval_, *self_communicator(), {}, 4);
  }
  static TokenData documents() {
    TokenData data;
    for (int d = 0; d < 10; ++d) {
      for (int t = 0; t < 12; ++t) {
        data.tokens.push_back((3 * d + 5 * t) % 23);
        data.scored.push_back(t > 0);
      }
      data.ends.push_back(static_cast<int64_t>(data.tokens.size()));
    }
    data.hash = "made up";
    return data;
  }
  std::vector<Written> evaluated(Communicator& world, std::vector<Written> written) {
    const JobInputs in{.config = config_, .recipe = recipe_, .world = world, .threads = 1};
    evaluate_written(in, own_.ctx, eval_, trained_, written);
    return written;
  }
  std::vector<Written> model_alone() {
    return {{.name = "model", .folder = folder_ / "model", .is_trained = false, .rounded_to = DType::bf16}};
  }

  test::TemporaryFolder folder_;
  test::OwnContext own_;
  JobConfig config_;
  Recipe recipe_ = Recipe::from_text("", "a recipe");
  PackedDataset eval_;
  LossSums trained_;
  bool is_exact_ = true;
};

TEST_F(WrittenFolder, IsReadBackWhenItWasRounded) {
  EXPECT_FALSE(is_exact_);
  const auto world = self_communicator();
  const auto written = evaluated(*world, model_alone());
  Model::Settings settings = test::tiny_settings(folder_ / "base");
  settings.model.path = folder_ / "model";
  settings.model.init = "pretrained";
  Model model(settings);
  EXPECT_EQ(written.at(0).sums.value()["nll"], evaluate(own_.ctx, model, eval_, *world, {}, 4)["nll"]);
  EXPECT_NE((*written.at(0).sums)["nll"], trained_["nll"]);
  EXPECT_EQ(figures_of_outcome(written, trained_)["nll"], (*written.at(0).sums)["nll"]);
}

TEST_F(WrittenFolder, ThatHoldsTheTrainedValuesHasTheirFiguresAndTheRunHasTheseToo) {
  auto both = model_alone();
  both.push_back({.name = "adapter", .folder = folder_ / "there is none"});
  const auto world = self_communicator();
  const auto written = evaluated(*world, both);
  EXPECT_EQ(written.at(1).sums.value()["nll"], trained_["nll"]);
  EXPECT_EQ(&figures_of_outcome(written, trained_), &trained_);
}

TEST_F(WrittenFolder, OfSeveralNodesIsReadByRankZeroAlone) {
  TwoNodes first(0), second(1);
  const auto world = self_communicator();
  EXPECT_EQ(evaluated(first, model_alone()).at(0).sums.value()["nll"],
            evaluated(*world, model_alone()).at(0).sums.value()["nll"]);
  EXPECT_TRUE(evaluated(second, {}).empty());
}

}  // namespace
}  // namespace tessera
