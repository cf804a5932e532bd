// Gates by SPSA: what they find, and a log from which the same theta comes again.

#include "compress/gate_spsa.h"

#include <gmock/gmock.h>

#include <limits>

#include "compress/coupled_blocks.h"
#include "compress/gate_backprop.h"
#include "compress/ranking.h"
#include "core/error.h"
#include "io/files.h"
#include "support/error_text.h"
#include "support/thread_ranks.h"

namespace tessera {
namespace {

using testing::ElementsAreArray;
using testing::HasSubstr;

class GatesBySpsa : public test::CoupledBlocks {
 protected:
  GatesBySpsa() {
    fold_.gate_estimator = "spsa";
    fold_.remove = 0.33;
    fold_.gate_lr = 0.05;
    fold_.gate_batch = 4;
    std::filesystem::create_directories(folder_ / "compress");
  }
  static void take(SpsaGates& trainer, int64_t steps) {
    for (int64_t step = 0; step < steps; ++step) trainer.take_step();
  }
  static std::string text(const GateTrainer& trainer) { return to_text(trainer.state(), {}); }
  /// The two that are removed, the first one in front.
  static std::vector<int64_t> first_two(const GateTrainer& trainer) {
    const std::vector<double> gates = trainer.gates(), no_influence(gates.size(), 0.0);
    const auto order = order_by_gates({.gate = gates, .theta = trainer.state().theta, .bi = no_influence, .falls = {}},
                                      ProtectedBlocks{});
    return {order.begin(), order.begin() + 2};
  }
};

// One row of twelve tokens a probe: steps so noisy that for seeds 5 and 8 thetas of all gates go above 1.1 at once,
// where both sides of a probe around theta itself would be open and say nothing any more.
TEST_F(GatesBySpsa, FindTheRankingOfBackpropagationWhateverTheDirections) {
  fold_.gate_lr = 0.03;
  fold_.gate_steps = 200;
  fold_.gate_batch = 8;
  const GateUnits of = units();
  const StageInputs in = inputs();
  BackpropGates exact(in, of, GateState::open(of.count()));
  while (!exact.is_done()) exact.take_step();
  fold_.gate_batch = 1;
  for (const int64_t seed : {1, 2, 3, 5, 8}) {
    train_.seed = seed;
    std::string straight;
    {
      SpsaGates trainer(in, of, false);
      take(trainer, fold_.gate_steps);
      EXPECT_THAT(first_two(trainer), ElementsAreArray(first_two(exact))) << "seed " << seed;
      EXPECT_NEAR(trainer.constraint().kept(trainer.gates()), trainer.constraint().target(), 0.01) << "seed " << seed;
      straight = text(trainer);
    }
    EXPECT_EQ(text(SpsaGates(in, of, true)), straight) << "from its log";
  }
}

TEST_F(GatesBySpsa, ThetaLeavesItsRangeAndIsReadClamped) {
  fold_.gate_lr = 0.03;
  fold_.gate_steps = 200;
  fold_.gate_batch = 1;
  const StageInputs in = inputs();
  const GateUnits of = units();
  SpsaGates trainer(in, of, false);
  int64_t above = 0, below = 0;
  while (!trainer.is_done()) {
    trainer.take_step();
    const std::vector<double>& theta = trainer.state().theta;
    const std::vector<double> gates = trainer.gates();
    for (size_t i = 0; i < theta.size(); ++i) {
      if (theta[i] >= 0 && theta[i] <= 1) continue;
      EXPECT_EQ(gates[i], theta[i] > 1 ? 1 : 0) << theta[i];
      ++(theta[i] > 1 ? above : below);
    }
  }
  EXPECT_GT(above, 100);
  EXPECT_GT(below, 50);
}

TEST_F(GatesBySpsa, TheLogGivesTheSameBitsAgainFromAnywhere) {
  for (const char* gates : {"block", "sublayer"}) {
    fold_.gates = gates;
    fold_.gate_steps = 13;
    const StageInputs in = inputs();
    const GateUnits of = units();
    std::string straight;
    {
      SpsaGates trainer(in, of, false);
      take(trainer, 13);
      straight = text(trainer);
    }
    EXPECT_EQ(text(SpsaGates(in, of, true)), straight) << "from its whole log";
    {
      SpsaGates begun(in, of, false);
      EXPECT_EQ(begun.state().step, 0) << "a log that is nobody's is not gone on with";
      take(begun, 11);
    }
    SpsaGates rest(in, of, true);
    EXPECT_EQ(rest.state().step, 11);
    take(rest, 2);
    EXPECT_EQ(text(rest), straight) << gates;
  }
}

TEST_F(GatesBySpsa, AnyNumberOfRanksFindsTheSameBits) {
  fold_.gate_steps = 4;
  for (const char* lowered : {"ce", "kl"}) {
    fold_.gate_loss = lowered;
    std::vector<std::string> found;
    for (const int ranks : {1, 3}) {
      std::filesystem::remove_all(folder_ / "compress");
      std::vector<std::string> texts(static_cast<size_t>(ranks));
      inputs();  // makes the data, which the ranks share
      test::on_thread_ranks(ranks, [&](Communicator& world) {
        test::OwnContext own;
        const StageInputs in = inputs(world, model_, own.ctx);
        const GateUnits of = units();
        SpsaGates trainer(in, of, false);
        take(trainer, 4);
        texts[static_cast<size_t>(world.rank())] = text(trainer);
      });
      found.insert(found.end(), texts.begin(), texts.end());
    }
    for (const std::string& one : found) EXPECT_EQ(one, found.front()) << lowered;
  }
}

TEST_F(GatesBySpsa, StopAtALossThatIsNotFiniteNamingStepAndBlock) {
  at(block(3).down, 1, 0) = std::numeric_limits<float>::quiet_NaN();
  const StageInputs in = inputs();
  const GateUnits of = units();
  SpsaGates trainer(in, of, false);
  const std::string told = test::error_text([&] { trainer.take_step(); });
  EXPECT_THAT(told, HasSubstr("step 1 of the gates"));
  EXPECT_THAT(told, HasSubstr("block 3 gives a number that is not finite"));
  EXPECT_EQ(trainer.state().step, 0);
}

TEST_F(GatesBySpsa, ADamagedLogIsNamedAndTheEndOfATornOneIsCutOff) {
  fold_.gate_steps = 6;
  const StageInputs in = inputs();
  const GateUnits of = units();
  std::string straight;
  {
    SpsaGates trainer(in, of, false);
    take(trainer, 6);
    straight = text(trainer);
  }
  const auto file = folder_ / "compress" / "gates-log" / "00000000.tsb";
  const std::string whole = read_text_file(file);
  test::write_file(file, whole.substr(0, whole.size() - 100));
  {
    SpsaGates trainer(in, of, true);
    EXPECT_LT(trainer.state().step, 6);
    while (!trainer.is_done()) trainer.take_step();
    EXPECT_EQ(text(trainer), straight);
  }
  std::string damaged = whole;
  damaged[100] = static_cast<char>(damaged[100] ^ 1);
  test::write_file(file, damaged);
  EXPECT_THAT(test::error_text([&] { SpsaGates(in, of, true); }), HasSubstr("00000000.tsb"));
}

}  // namespace
}  // namespace tessera
