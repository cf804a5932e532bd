// Whole simulations of a few dozen nodes on the quadratic: equal weights everywhere, whatever comes and goes, and the
// same run twice.

#include "train/spsa/simulate/simulation.h"

#include <gtest/gtest.h>

#include "steplog/step_log.h"
#include "support/tiny_model.h"
#include "train/spsa/rounds.h"
#include "train/spsa/simulate/quadratic.h"
#include "train/spsa/spsa_inputs.h"

namespace tessera {
namespace {

using namespace test;

class Simulated : public testing::Test {
 protected:
  Simulated() {
    context_.ctx.threads = 1;
    reserve_quadratic(pool_);
    pool_.allocate(1, ParameterPool::Gradients::no);
    config_.nodes = 24;
    config_.rounds = 30;
    config_.churn = 0;
    config_.loss = 0;
    spsa_.transport = "nats";
    spsa_.probes = 8;
    spsa_.loose.first_deadline = 5;
    optimizer_.name = "sgd";
    optimizer_.momentum = 0;
    optimizer_.lr = 0.04;
    optimizer_.schedule = "constant";
  }
  RunHeader header() {
    TrainConfig train;
    train.steps = config_.rounds;
    return make_header(spsa_, train, optimizer_, {.params = pool_.trainable(), .base = "", .selection = "all"}, 1,
                       kNewestRules, {}, context_.ctx);
  }
  SimReport run(const std::string& name = "run") {
    const RunHeader h = header();
    const auto losses = make_quadratic_losses(h, static_cast<uint64_t>(config_.seed));
    std::filesystem::create_directories(folder_ / name);
    return simulate({.ctx = context_.ctx,
                     .config = config_,
                     .spsa = spsa_,
                     .header = h,
                     .start = pool_.trainable(),
                     .losses = *losses,
                     .folder = folder_ / name});
  }
  /// The digest of a replica that has seen nothing but the log in a folder.
  std::string replayed(const std::filesystem::path& log_folder) {
    const StepLog log = StepLog::open(log_folder, {.access = StepLog::Access::read});
    OwnWeights own(pool_.trainable());
    Replica replica(RunHeader::parse(log.header(), "header"), own.params);
    replay(context_.ctx, replica, log, {}, rounds_in(log));
    return replica.digest(context_.ctx).text();
  }
  std::string log_of(const std::string& name) { return read_file(folder_ / name / "log" / "00000000.tsb"); }

  OwnContext context_;
  TemporaryFolder folder_;
  ParameterPool pool_;
  SimulateConfig config_;
  SpsaConfig spsa_;
  OptimizerConfig optimizer_;
};

TEST_F(Simulated, NodesHoldEqualWeightsThatAReplayOfEachLogGives) {
  spsa_.digest_every = 7;
  const SimReport report = run();
  EXPECT_EQ(report.rounds, 30);
  EXPECT_EQ(report.divergence, 0);
  EXPECT_EQ(report.compared, 5 * 8) << "eight at each DIGEST and at the end";
  EXPECT_LT(report.loss_last, 0.9 * report.loss_first);
  EXPECT_EQ(replayed(folder_ / "run" / "log"), report.digest);
  EXPECT_EQ(replayed(folder_ / "run" / "nodes" / "00003" / "log"), report.digest) << "the whole node behind the first";
}

/// A bit of one node's weights turns while it looks at them.
class FailingMemory final : public SimLosses {
 public:
  explicit FailingMemory(SimLosses& losses) : losses_(losses) {}
  Measured measure(ConstView values, uint32_t round, int unit, uint32_t machine, uint32_t lane) override {
    if (round == 5 && !std::exchange(has_failed_, true)) *static_cast<uint8_t*>(const_cast<void*>(values.data)) ^= 1;
    return losses_.measure(values, round, unit, machine, lane);
  }

 private:
  SimLosses& losses_;
  bool has_failed_ = false;
};

TEST_F(Simulated, WeightsThatDifferAreCountedAndTheOthersGoOn) {
  spsa_.digest_every = 7;
  config_.nodes = 5;  // all have weights of their own
  const RunHeader h = header();
  const auto losses = make_quadratic_losses(h, 1);
  FailingMemory failing(*losses);
  const SimReport report = simulate({.ctx = context_.ctx,
                                     .config = config_,
                                     .spsa = spsa_,
                                     .header = h,
                                     .start = pool_.trainable(),
                                     .losses = failing,
                                     .folder = folder_.path()});
  EXPECT_EQ(report.divergence, 1);
  EXPECT_EQ(report.compared, 5 + 4 * 4);
  EXPECT_EQ(report.rounds, 30);
}

TEST_F(Simulated, WithoutLossEveryNodeVotesInEveryRoundThatItHasALaneIn) {
  run();
  const StepLog log = StepLog::open(folder_ / "run" / "log", {.access = StepLog::Access::read});
  log.for_each(0, [&](const Record& record, std::span<const std::byte>) {
    if (record.type == RecordType::round && record.round > 3) {
      EXPECT_EQ(std::ranges::count(record.present, true), 24) << "round " << record.round;
      EXPECT_TRUE(record.extra.empty()) << "round " << record.round;
    }
    return true;
  });
}

TEST_F(Simulated, NodesThatMeasureAheadAreFasterWhereTheNetworkIsAsSlowAsTheForwards) {
  config_.jitter_ms = 0;
  config_.latency_ms = 100;
  config_.forward_seconds = 0.025;  // 16 a round: as long as there, back, there and back
  const double ahead = run("ahead").simulated_seconds;
  spsa_.loose.ahead = false;
  const double not_ahead = run("not ahead").simulated_seconds;
  EXPECT_GT(not_ahead, 1.4 * ahead);
  EXPECT_GT(not_ahead, 30 * 0.8);
}

TEST_F(Simulated, LostMessagesNewcomersAndTheKilledChangeNoWeights) {
  config_.loss = 0.03;
  config_.churn = 0.03;
  config_.rounds = 60;
  spsa_.digest_every = 10;
  spsa_.loose.absent_limit = 3;
  const SimReport report = run();
  EXPECT_EQ(report.divergence, 0);
  EXPECT_GT(report.leaves, 5);
  EXPECT_GT(report.kills, 5);
  EXPECT_EQ(report.joins, report.leaves + report.kills);
  EXPECT_GT(report.lanes_given_anew, 10);
  EXPECT_GT(report.stale_groups, 0);
  EXPECT_GT(report.caught_up, 10);
  EXPECT_GE(report.catch_up_largest, report.catch_up_median);
  EXPECT_GT(report.catch_up_median, 0.2) << "its way in, a record, and its probes";
  EXPECT_LT(report.loss_last, report.loss_first);
  EXPECT_EQ(replayed(folder_ / "run" / "log"), report.digest);
}

TEST_F(Simulated, ARunIsAFunctionOfRecipeNodesAndSeed) {
  config_.loss = 0.02;
  config_.churn = 0.02;
  config_.hostile = 0.1;
  const std::string first = run("a").json().dump(), again = run("b").json().dump();
  EXPECT_EQ(first, again);
  EXPECT_EQ(log_of("a"), log_of("b"));
  config_.seed = 2;
  EXPECT_NE(run("c").json().dump(), first);
  EXPECT_NE(log_of("c"), log_of("a"));
}

TEST_F(Simulated, OneNodeAloneIsARun) {
  config_.nodes = 1;
  const SimReport report = run();
  EXPECT_EQ(report.divergence, 0);
  EXPECT_EQ(report.votes, 29 * 8) << "the record of round 0 is that by which it joins";
}

TEST_F(Simulated, LiarsUndoASumAndNotAMedian) {
  config_.nodes = 20;
  config_.hostile = 0.3;
  spsa_.directions = "shared";
  spsa_.probes = 64;
  config_.forward_seconds = 0.001;
  optimizer_.lr = 0.02;
  const auto fallen = [&](const std::string& aggregate, double hostile, const std::string& name) {
    spsa_.aggregate = aggregate;
    config_.hostile = hostile;
    const SimReport report = run(name);
    return report.loss_first - report.loss_last;
  };
  const double honest = fallen("median", 0, "a"), median = fallen("median", 0.3, "b"), sum = fallen("sum", 0.3, "c");
  EXPECT_GT(honest, 10);
  EXPECT_GT(median, 0.75 * honest);
  EXPECT_LT(sum, 0.6 * honest) << "three in ten cancel six in ten";
}

TEST_F(Simulated, ARunThatStandsStillSaysSoInsteadOfGoingOnForEver) {
  config_.nodes = 3;
  config_.rate_mbit = 1e-7;  // 80 s a byte
  EXPECT_THROW(run(), UserError);
}

}  // namespace
}  // namespace tessera
