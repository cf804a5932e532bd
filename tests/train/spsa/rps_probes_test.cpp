// Stable-RPS under one-byte SPSA: probes move cells, and replicas step as the optimizer does.

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/minifloat.h"
#include "kernels/votes.h"
#include "model/sharing_io.h"
#include "train/rps_training.h"
#include "train/spsa/packer.h"
#include "train/spsa/replica.h"
#include "train/spsa/spsa_inputs.h"

namespace tessera {
namespace {

using namespace test;

class RpsProbes : public RpsTraining {
 protected:
  std::unique_ptr<Model> make(bool gradients = true, const SharingConfig& sharing = rps(3.3)) {
    Model::Settings s = settings(sharing, {.tied = true});
    s.gradients = gradients;
    return std::make_unique<Model>(s);
  }
  static Direction direction(uint16_t sample) { return {.seed = 5, .round = 2, .machine = 1, .sample = sample}; }
};

TEST_F(RpsProbes, MoveTheWeightsOfACellTogetherAndTheModelByTheCellsNumber) {
  for (const double compression : {1.0, 3.3}) {
    const auto model = make(false, rps(compression));
    const FlatParams& params = model->pool().trainable();
    const float eps = 0x1p-7f;
    Tensor copy(params.values.shape, DType::f32);
    perturb(own_.ctx, params.values, 0, direction(3), eps, copy);
    const PoolRead moved{&model->pool(), nullptr, 0, copy.view()};
    const int64_t m = test::slot_of(model->pool(), "rps.pool").shape.count();
    const PageFold page{123321, m};
    std::vector<double> w, cell(static_cast<size_t>(m), std::nan(""));
    const auto& specs = model->decoder().specs();
    for (size_t i = 0; i < specs.size(); ++i) {
      if (specs[i].role != Role::linear && specs[i].role != Role::embedding) continue;
      Tensor one(specs[i].shape, DType::f32);
      model->decoder().weight(static_cast<int>(i))->gather(own_.ctx, moved, one);
      append(w, one.view());
    }
    for (size_t i = 0; i < w.size(); ++i) {
      double& other = cell[static_cast<size_t>(page.cell(static_cast<int64_t>(i)))];
      const double own = page.sign(static_cast<int64_t>(i)) * w[i];
      if (!std::isnan(other)) {
        ASSERT_EQ(own, other) << "weight " << i;
      }
      other = own;
    }
    // Isotropic in the subspace: a cell's weights together move by eps, whatever their scale and number.
    const double length = norm(difference(w, weights(*model)));
    EXPECT_NEAR(length, eps * std::sqrt(static_cast<double>(m)), 1e-4 * length);
  }
}

TEST_F(RpsProbes, ReadCopiesAndGiveTheLossOfWeightsThatWereTrulyMoved) {
  SpsaConfig spsa;
  const auto model = make(false), untouched = make(false);
  const auto prober = make_prober(spsa, *model);
  EXPECT_GE(prober->owned_bytes(), model->pool().trainable().values.bytes()) << "auto picks copies";
  const std::vector<Point> points{{direction(0), 0.01f}, {direction(0), -0.01f}, {{}, 0}, {direction(4), 0.3f}};
  const PackedBatch rows = batch();
  const auto sums = prober->losses(own_.ctx, {&rows, 1}, points);
  for (size_t k = 0; k < points.size(); ++k) {
    const auto moved = make(false);
    const FlatParams& params = moved->pool().trainable();
    Tensor copy(params.values.shape, DType::f32);
    perturb(own_.ctx, params.values, 0, points[k].z, points[k].scale, copy);
    std::memcpy(params.values.mutable_data(), copy.view().data, static_cast<size_t>(params.values.bytes()));
    EXPECT_EQ(sums[k]["nll"], score_batch(own_.ctx, *moved, rows)["nll"]) << "point " << k;
  }
  EXPECT_TRUE(test::same_bytes(model->pool().trainable().values, untouched->pool().trainable().values));
}

TEST_F(RpsProbes, FindTheGradientsPartAlongTheirDirection) {
  const auto model = make();
  const PackedBatch rows = batch();
  backprop_batch(own_.ctx, *model, rows);
  const FlatParams& params = model->pool().trainable();
  const auto q = params.grads.as<float>();
  Prober prober(*model, Prober::Perturb::copies, 2);
  std::vector<double> found, expected;
  for (uint16_t sample = 0; sample < 24; ++sample) {
    const Direction z = direction(sample);
    // The sum of 33 losses near 3 is known to about 1e-5, so the slope (about 90) to 0.005; the third derivative adds a
    // part that falls with eps²: 2.6 % at 3e-3, 0.3 % here.
    const float eps = 1e-3f;
    const auto sums = prober.losses(own_.ctx, {&rows, 1}, std::vector<Point>{{z, eps}, {z, -eps}});
    found.push_back((sums[0]["nll"] - sums[1]["nll"]) / (2 * static_cast<double>(eps)));
    double along = 0;
    for (const TrainableSlot& slot : params.slots)
      for (int64_t p = slot.begin; p < slot.begin + slot.shape.count(); ++p)
        along += static_cast<double>(q[p]) * sign_at(z, static_cast<uint64_t>(p));
    expected.push_back(along);
  }
  EXPECT_LE(norm(difference(found, expected)), 0.01 * norm(expected));
}

/// A replica that applies votes, and an optimizer that is given the gradient they describe:
/// five rounds to the same bits.
void expect_same_steps(const Context& ctx, FlatParams& probed, FlatParams& trained) {
  RunHeader header;
  header.manifest = manifest_of(probed);
  header.seed = 9;
  header.m = 2;
  header.optimizer = "adamw";
  header.beta1 = 0.5;  // exact in f32, as the replica holds them
  header.beta2 = 0.75;
  header.clip = 0;
  Replica replica(header, probed);
  const OptimizerConfig config{.name = "adamw", .beta1 = 0.5, .beta2 = 0.75};
  const auto optimizer = make_optimizer(config, trained.values.shape.count());
  ChainTip tip;
  for (int64_t round = 0; round < 5; ++round) {
    std::map<uint32_t, Vote> votes;
    votes[0].bytes = {static_cast<uint8_t>(0x31 + 16 * round), 0xa5};
    const Record record = pack_round(replica, {}, tip, votes, 1, {1e-3f, 1});
    tip.advance(encode(record));
    const float scale = std::ldexp(1.0f, -replica.unit()) / 2;
    const auto vote = [&](uint16_t s, int64_t p) {
      const Direction z = direction_of(header, static_cast<uint32_t>(round), 0, 0, s);
      return decode_vote(votes[0].bytes[s]) * sign_at(z, static_cast<uint64_t>(p));
    };
    for (const TrainableSlot& slot : trained.slots)
      for (int64_t p = slot.begin; p < slot.begin + slot.shape.count(); ++p)
        trained.grads.as<float>()[p] = scale * static_cast<float>(vote(0, p) + vote(1, p));
    replica.apply(ctx, record);
    optimizer->step(ctx, trained, {round + 1, -record.alpha / scale, 1});
    ASSERT_TRUE(test::same_bytes(probed.values, trained.values)) << "round " << round;
  }
}

TEST_F(RpsProbes, AReplicaTakesTheStepsOfTheOptimizer) {
  const auto probed = make(false), trained = make(), start = make(false);
  expect_same_steps(own_.ctx, probed->pool().trainable(), trained->pool().trainable());
  EXPECT_FALSE(test::same_bytes(probed->pool().trainable().values, start->pool().trainable().values));
}

TEST_F(RpsProbes, AReplicaTakesTheStepsOfTheOptimizerInPiecesThatItsBlocksCut) {
  ParameterPool probed, trained;
  for (ParameterPool* pool : {&probed, &trained}) {
    pool->reserve("a", {.shape = {333}, .init = test::normal(1)});
    pool->reserve("cells", {.shape = {150'000},
                            .init = test::normal(1),
                            .step_scale = 0.5,
                            .adaptive_steps = {{1, 3}, {65'535, 2}, {65'537, 5}, {140'000, 1.5}, {150'000, 4}}});
    pool->allocate(3);
  }
  expect_same_steps(own_.ctx, probed.trainable(), trained.trainable());
}

TEST_F(RpsProbes, AManifestTellsTheAdaptiveSteps) {
  const auto lines = [&](const char* kappa) {
    SharingConfig sharing = rps(3.3);
    sharing.kappa = kappa;
    return manifest_of(make(false, sharing)->pool().trainable());
  };
  const auto unit = lines("unit"), iso = lines("iso");
  EXPECT_THAT(iso.back(), testing::Not(testing::HasSubstr("adaptive")));
  EXPECT_THAT(unit.back(), testing::StartsWith(iso.back() + ", adaptive steps to "));
  EXPECT_THAT(unit.back(), testing::HasSubstr(" x 2"));  // cells of 4 readers
  EXPECT_THAT(unit.back(), testing::HasSubstr(fmt::format(" x {}", std::sqrt(3.0f))));
}

}  // namespace
}  // namespace tessera
