// A probe sees exactly w + eps z, however it is read, and leaves no trace.

#include "train/spsa/prober.h"

#include <gtest/gtest.h>

#include "kernels/votes.h"
#include "support/tiny_model.h"
#include "train/backprop.h"
#include "train/spsa/packer.h"

namespace tessera {
namespace {

PackedBatch batch_of(int64_t rows, uint32_t salt = 0) {
  PackedBatch batch = widest_batch(rows, 12, 5);
  for (size_t i = 0; i < batch.ids.size(); ++i) {
    batch.ids[i] = static_cast<int32_t>((i * 7 + i / 3 + salt) % 23);
    batch.labels[i] = i % 4 == 3 ? -1 : static_cast<int32_t>((i * 5 + 3 + salt) % 23);
    batch.positions[i] = static_cast<int32_t>(i % 12 % 5);
  }
  return batch;
}

struct Setting {
  std::string method;
  bool tied;
  std::string dtype;
};
void PrintTo(const Setting& s, std::ostream* out) { *out << s.method << (s.tied ? " tied " : " ") << s.dtype; }

class ProberOf : public testing::TestWithParam<Setting> {
 protected:
  std::unique_ptr<Model> make() {
    Model::Settings settings =
        test::tiny_settings(folder_.path(), {.tied = GetParam().tied, .dtype = GetParam().dtype});
    settings.gradients = false;
    settings.train_base = GetParam().method == "none";
    settings.adapter.method = GetParam().method;
    auto model = std::make_unique<Model>(settings);
    if (model->adapter()) test::fill_all_normal(model->pool(), 3, 0.2);
    model->assemble(own_.ctx);
    return model;
  }
  /// The loss after truly writing w + scale z into the pool.
  LossSums moved(const PackedBatch& batch, const Point& point) {
    const auto model = make();
    FlatParams& params = model->pool().trainable();
    Tensor copy(params.values.shape, DType::f32);
    perturb(own_.ctx, params.values, 0, point.z, point.scale, copy);
    std::memcpy(params.values.mutable_data(), copy.view().data, static_cast<size_t>(params.values.bytes()));
    model->assemble(own_.ctx);
    return score_batch(own_.ctx, *model, batch);
  }
  std::vector<Prober::Perturb> ways() const {
    if (GetParam().method != "none") return {Prober::Perturb::copies};
    return {Prober::Perturb::copies, Prober::Perturb::layers};
  }
  test::TemporaryFolder folder_;
  test::OwnContext own_;
};

TEST_P(ProberOf, GivesTheLossOfWeightsThatWereTrulyMoved) {
  const PackedBatch batch = batch_of(3);
  const std::vector<Point> points{{{.seed = 5, .round = 2, .machine = 1, .sample = 0}, 0.01f},
                                  {{.seed = 5, .round = 2, .machine = 1, .sample = 0}, -0.01f},
                                  {{}, 0.0f},
                                  {{.seed = 5, .round = 2, .machine = 1, .sample = 7, .lane = 5, .lanes = 64}, 0.02f},
                                  {{.seed = 9, .round = 1, .machine = 0, .sample = 3}, -0.3f}};
  for (const Prober::Perturb way : ways())
    for (const int64_t side_by_side : {1, 2, 3}) {
      const auto model = make();
      Prober prober(*model, way, side_by_side);
      const auto sums = prober.losses(own_.ctx, {&batch, 1}, points);
      for (size_t k = 0; k < points.size(); ++k) {
        const LossSums expected = moved(batch, points[k]);
        EXPECT_EQ(sums[k]["nll"], expected["nll"]) << "point " << k << ", " << side_by_side << " side by side";
        EXPECT_EQ(sums[k]["scored"], expected["scored"]);
        EXPECT_EQ(sums[k]["correct"], expected["correct"]);
      }
      EXPECT_NE(sums[0]["nll"], sums[1]["nll"]);
    }
}

TEST_P(ProberOf, NeverWritesTheWeights) {
  const PackedBatch batch = batch_of(1);
  for (const Prober::Perturb way : ways()) {
    const auto model = make(), untouched = make();
    Prober prober(*model, way, 2);
    for (uint32_t round = 0; round < 1000; ++round) {
      const Direction z{.seed = 1, .round = round, .machine = 0, .sample = 0};
      const std::vector<Point> points{{z, 0.1f}, {z, -0.1f}};
      prober.losses(own_.ctx, {&batch, 1}, points);
    }
    EXPECT_TRUE(test::same_bytes(model->pool().trainable().values, untouched->pool().trainable().values));
    EXPECT_EQ(score_batch(own_.ctx, *model, batch)["nll"], score_batch(own_.ctx, *untouched, batch)["nll"]);
  }
}

// Perturbing in place would drift. One setting of each kind of pool.
class ReplicaBesideAProber : public ProberOf {};

TEST_P(ReplicaBesideAProber, ThatEvaluatesTenThousandProbesEqualsOneThatOnlyReplays) {
  const PackedBatch batch = batch_of(1);
  const auto working = make(), replaying = make();
  RunHeader header;
  header.seed = 8;
  header.m = 2;
  Replica a(header, working->pool().trainable()), b(header, replaying->pool().trainable());
  Prober prober(*working, ways().back(), 2);
  for (uint32_t round = 0; round < 10; ++round) {
    for (uint16_t s = 0; s < 1000; ++s) {
      const Direction z{.seed = 8, .round = round, .machine = 1, .sample = s};
      const std::vector<Point> points{{z, 0.01f}, {z, -0.01f}};
      prober.losses(own_.ctx, {&batch, 1}, points);
    }
    Vote vote;
    vote.bytes = {static_cast<uint8_t>(0x10 + round), static_cast<uint8_t>(0xa0 + round)};
    const Record record = pack_round(a, {}, {}, {{0, vote}}, 1, {1e-3f, 1});
    a.apply(own_.ctx, record);
    b.apply(own_.ctx, record);
    working->assemble(own_.ctx);
  }
  EXPECT_EQ(a.digest(own_.ctx), b.digest(own_.ctx));
  EXPECT_TRUE(test::same_bytes(working->pool().trainable().values, replaying->pool().trainable().values));
}

// What kernels and batch splits add to g is small beside what the draws of z and rows do.
TEST_P(ProberOf, TheNoiseOfKernelsAndSplitsIsSmallBesideTheSpreadOfGradients) {
  const std::vector<PackedBatch> whole{batch_of(4)};
  std::vector<PackedBatch> parts;
  for (int64_t row = 0; row < 4; ++row) {
    PackedBatch part = whole[0];
    part.rows = 1;
    const auto cut = [&](auto& values) { values.assign(values.begin() + row * 12, values.begin() + row * 12 + 12); };
    cut(part.ids), cut(part.positions), cut(part.labels), cut(part.draw_index);
    part.documents = {{0, 12}};
    parts.push_back(part);
  }
  // Documents that do not cross rows, so that a row can stand alone.
  std::vector<PackedBatch> joined{whole[0]};
  joined[0].documents = {{0, 12}, {12, 24}, {24, 36}, {36, 48}};
  test::OwnContext reference("reference");
  for (const double eps : {1e-2, 1e-3}) {
    const auto model = make();
    Prober prober(*model, ways().back(), 2);
    double noise = 0, mean = 0, squares = 0;
    constexpr int kProbes = 24;
    for (uint16_t s = 0; s < kProbes; ++s) {
      const Direction z{.seed = 3, .round = 0, .machine = 0, .sample = s};
      const auto e = static_cast<float>(eps);
      const std::vector<Point> points{{z, e}, {z, -e}};
      const auto gradient = [&](const Context& ctx, std::span<const PackedBatch> batches) {
        model->assemble(ctx);
        const auto sums = prober.losses(ctx, batches, points);
        return (sums[0]["nll"] - sums[1]["nll"]) / sums[0]["scored"] / (2 * eps);
      };
      const double a = gradient(own_.ctx, joined), b = gradient(own_.ctx, parts), c = gradient(reference.ctx, joined);
      noise = std::max({noise, std::abs(a - b), std::abs(a - c)});
      mean += a / kProbes;
      squares += a * a / kProbes;
    }
    const double sigma = std::sqrt(squares - mean * mean);
    EXPECT_LT(noise, 0.1 * sigma) << "eps " << eps << ", sigma " << sigma;
  }
}

INSTANTIATE_TEST_SUITE_P(Settings, ReplicaBesideAProber,
                         testing::Values(Setting{"none", false, "float32"}, Setting{"lora", false, "float32"},
                                         Setting{"mos", true, "float32"}));
INSTANTIATE_TEST_SUITE_P(Settings, ProberOf,
                         testing::Values(Setting{"none", false, "float32"}, Setting{"none", true, "float32"},
                                         Setting{"none", false, "bfloat16"}, Setting{"lora", true, "bfloat16"},
                                         Setting{"lora", false, "float32"}, Setting{"mos", true, "float32"},
                                         Setting{"mos", false, "float16"}));

}  // namespace
}  // namespace tessera
