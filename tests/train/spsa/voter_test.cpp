// A machine's vote: its bytes are what the losses at the probed points say, found here with the prober alone.

#include "train/spsa/voter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "support/tiny_model.h"
#include "support/token_data.h"
#include "train/spsa/vote_codec.h"

namespace tessera {
namespace {

constexpr int64_t kRows = 40, kLength = 12;

class Votes : public testing::Test {
 protected:
  Votes()
      : data_(test::token_data(kRows, kLength, [](int64_t d, int64_t t) { return (3 * d + t * (1 + d % 5)) % 23; }),
              kLength, 1) {
    Model::Settings settings = test::tiny_settings(folder_.path());
    settings.gradients = false;
    settings.adapter.method = "lora";
    model_ = std::make_unique<Model>(settings);
    test::fill_all_normal(model_->pool(), 3, 0.2);
    model_->assemble(own_.ctx);
    prober_ = std::make_unique<Prober>(*model_, Prober::Perturb::copies, 2);
    train_.batch = 4;
    train_.sequence_length = kLength;
    header_.manifest = manifest_of(model_->pool().trainable());
    header_.seed = 77;
    header_.eps = 1e-2;
    header_.m = 3;
  }
  Voter voter(uint32_t machine = 0) {
    return {{.ctx = own_.ctx, .data = data_, .train = train_, .spsa = spsa_, .header = header_, .prober = *prober_},
            machine};
  }
  /// The gradients that a vote tells.
  std::vector<double> told(const std::vector<uint8_t>& bytes) const {
    std::vector<double> g;
    for (size_t s = 0; s < bytes.size(); s += 4) {
      float value = 0;
      std::memcpy(&value, &bytes[s], sizeof(value));
      g.push_back(static_cast<double>(value));
    }
    return g;
  }
  /// Mean loss of all rows at w + scale z of probe s of machine 0 in round 2.
  double loss_at(uint16_t s, float scale) {
    std::vector<int64_t> rows(static_cast<size_t>(data_.rows()));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
    const Point point{direction_of(header_, 2, 0, 0, s), scale};
    const PackedBatch batch = data_.batch(rows, 0);
    return objective_of("tokens").mean(prober_->losses(own_.ctx, {&batch, 1}, {&point, 1}).front());
  }

  test::TemporaryFolder folder_;
  test::OwnContext own_;
  PackedDataset data_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Prober> prober_;
  TrainConfig train_;
  SpsaConfig spsa_;
  RunHeader header_;
};

// A batch as large as the data set takes every row, so that the losses are known without the voter's draws.

TEST_F(Votes, OfTwoSidesAreSlopesBetweenBoth) {
  header_.votes = VoteKind::float32;
  train_.batch = data_.rows();
  const Measured found = voter().measure(2, 9);
  const std::vector<double> g = told(found.bytes);
  ASSERT_EQ(g.size(), 3u);
  double loss = 0;
  for (uint16_t s = 0; s < 3; ++s) {
    const double plus = loss_at(s, 1e-2f), minus = loss_at(s, -1e-2f), slope = (plus - minus) / 2e-2;
    EXPECT_NEAR(g[s], slope, 1e-3 * std::abs(slope) + 1e-4) << s;
    EXPECT_GT(std::abs(g[s]), 1e-2) << "the loss moves along probe " << s;
    loss += (plus + minus) / 6;
  }
  EXPECT_NEAR(found.loss, loss, 1e-6);
  EXPECT_EQ(found.scored, 3 * kRows * (kLength - 1)) << "each probe reads rows of its own";
}

TEST_F(Votes, OfOneSideAreRisesFromTheWeightsThemselves) {
  header_.votes = VoteKind::float32;
  spsa_.sides = "one";
  train_.batch = data_.rows();
  const Measured found = voter().measure(2, 9);
  const std::vector<double> g = told(found.bytes);
  ASSERT_EQ(g.size(), 3u);
  const double at_w = loss_at(0, 0);
  for (uint16_t s = 0; s < 3; ++s) {
    const double rise = (loss_at(s, 1e-2f) - at_w) / 1e-2;
    EXPECT_NEAR(g[s], rise, 1e-3 * std::abs(rise) + 1e-4) << s;
  }
  EXPECT_NEAR(found.loss, at_w, 1e-9);
  EXPECT_EQ(found.scored, kRows * (kLength - 1)) << "all probes read the same rows";
}

TEST_F(Votes, ThatAreNormalisedHaveADeviationOfOne) {
  header_.votes = VoteKind::float32;
  header_.m = 16;
  spsa_.sides = "one";
  spsa_.normalise = true;
  const std::vector<double> g = told(voter().measure(2, 6).bytes);
  double mean = 0, squares = 0;
  for (const double x : g) mean += x / 16;
  for (const double x : g) squares += (x - mean) * (x - mean);
  EXPECT_NEAR(std::sqrt(squares / 15), 1, 1e-5);
}

TEST_F(Votes, AreTheBytesOfTheirSlopes) {
  header_.votes = VoteKind::float32;
  const std::vector<double> g = told(voter(5).measure(2, 9).bytes);
  for (const VoteKind kind : {VoteKind::byte, VoteKind::sign}) {
    header_.votes = kind;
    std::vector<uint8_t> expected;
    for (uint16_t s = 0; s < 3; ++s) write_vote(header_, g[s], 9, 2, 5, s, expected);
    EXPECT_EQ(voter(5).measure(2, 9).bytes, expected);
  }
}

TEST_F(Votes, AreAFunctionOfRoundAndMachineAndNotOfTheCall) {
  const auto vote = [&](uint32_t machine, uint32_t round) { return voter(machine).measure(round, 9).bytes; };
  const auto first = vote(0, 2);
  EXPECT_EQ(vote(0, 2), first);
  EXPECT_EQ((std::set{first, vote(1, 2), vote(0, 3)}.size()), 3u);
}

TEST_F(Votes, DoNotDependOnTheMicroBatchBeyondRounding) {
  header_.votes = VoteKind::float32;
  train_.batch = 6;
  const std::vector<double> whole = told(voter().measure(2, 9).bytes);
  train_.micro_batch = 1;
  const std::vector<double> single = told(voter().measure(2, 9).bytes);
  for (size_t s = 0; s < whole.size(); ++s) EXPECT_NEAR(single[s], whole[s], 1e-3 * std::abs(whole[s]) + 1e-4);
}

TEST_F(Votes, OfABatchLargerThanTheDataDrawRowsMoreThanOnce) {
  train_.batch = 3 * kRows;
  EXPECT_EQ(voter().measure(2, 9).scored, 3 * 3 * kRows * (kLength - 1));
}

TEST_F(Votes, OfALossThatIsNotFiniteAreInvalid) {
  header_.eps = 1e30;
  EXPECT_EQ(valid_votes(header_, voter().measure(2, 9).bytes), 0);
}

}  // namespace
}  // namespace tessera
