// What crosses between host and device while a model is trained: the list in docs/devices.md, to the byte.
// The far device stands for any.

#include <gtest/gtest.h>

#include "core/device/memory.h"
#include "kernels/compute.h"
#include "support/methods.h"
#include "support/tiny_model.h"
#include "train/checkpoint.h"
#include "train/optimizers/optimizer.h"
#include "train/spsa/prober.h"
#include "train/trainer.h"

namespace tessera {
namespace {

constexpr int64_t kRows = 4, kLength = 12;

struct Crossed {
  int64_t uploads, uploaded_bytes, downloads, downloaded_bytes;
  friend bool operator==(const Crossed&, const Crossed&) = default;
};
void PrintTo(const Crossed& c, std::ostream* out) {
  *out << c.uploads << " uploads of " << c.uploaded_bytes << " bytes, " << c.downloads << " downloads of "
       << c.downloaded_bytes;
}

template <class Work> Crossed crossed(Work&& work) {
  const Transfers before = transfers();
  work();
  const Transfers after = transfers();
  return {after.uploads - before.uploads, after.uploaded_bytes - before.uploaded_bytes,
          after.downloads - before.downloads, after.downloaded_bytes - before.downloaded_bytes};
}

TokenData repeated_tokens() {
  TokenData data;
  for (int64_t d = 0; d < 20; ++d) {
    for (int64_t t = 0; t < kLength; ++t) {
      data.tokens.push_back(static_cast<int32_t>((3 * d + t) % 23));
      data.scored.push_back(t % 3 != 0);
    }
    data.ends.push_back(static_cast<int64_t>(data.tokens.size()));
  }
  data.hash = "made up";
  return data;
}

class Crossing : public testing::Test {
 protected:
  std::unique_ptr<Model> make_model(const std::string& method, bool gradients = true) {
    Model::Settings settings = test::tiny_settings(folder_.path());
    settings.device = far_;
    settings.adapter.method = method;
    settings.adapter.rank = 2;
    settings.train_base = method == "none";
    settings.gradients = gradients;
    return std::make_unique<Model>(settings);
  }
  Crossed train(const std::string& method, int64_t steps) {
    const auto model = make_model(method);
    const auto world = self_communicator();
    Reporter report(nullptr, Progress::none);
    TrainerConfig config;
    config.train.steps = steps;
    config.train.batch = kRows;
    config.train.micro_batch = 2;
    config.train.sequence_length = kLength;
    return crossed([&] {
      run_training(
          {.config = config, .model = *model, .data = data_, .world = *world, .ctx = compute_, .report = report});
    });
  }

  const Device far_ = device_of("far");
  test::TemporaryFolder folder_;
  Compute compute_{{.device = far_, .threads = 2}, 16 << 20};
  PackedDataset data_{repeated_tokens(), kLength, 1};
};

TEST_F(Crossing, AStepOfBackpropagationSendsItsBatchAndBringsBackSums) {
  for (const char* method : {"none", "lora", "mos"}) {
    const Crossed three = train(method, 3), five = train(method, 5);
    const int64_t passes = 2, tokens = kRows * kLength, documents = kRows, scored = documents * 8;
    const auto parts = static_cast<int64_t>(make_model(method)->pool().trainable().parts.size());
    const Crossed step{6 * passes, tokens * (4 + 4 + 8) + documents * 32 + scored * (4 + 4), 2 * passes + 1,
                       scored * (4 + 4) + parts * 8};
    EXPECT_EQ((Crossed{five.uploads - three.uploads, five.uploaded_bytes - three.uploaded_bytes,
                       five.downloads - three.downloads, five.downloaded_bytes - three.downloaded_bytes}),
              (Crossed{2 * step.uploads, 2 * step.uploaded_bytes, 2 * step.downloads, 2 * step.downloaded_bytes}))
        << method;
  }
}

TEST_F(Crossing, AProbeSendsItsBatchForEachPointAndBringsBackLosses) {
  const auto model = make_model("lora", false);
  Prober prober(*model, Prober::Perturb::copies, 2);
  const PackedBatch batch = data_.batch({{0, 1}}, 0);
  const Point points[] = {{.z = {.seed = 1}, .scale = 0.1f}, {.z = {.seed = 1}, .scale = -0.1f}};
  const int64_t tokens = 2 * batch.tokens(), documents = 2 * 2, scored = documents * 8;
  EXPECT_EQ(crossed([&] {
              prober.losses(compute_, {&batch, 1}, points);
            }),
            (Crossed{5, tokens * (4 + 4) + documents * 32 + scored * (4 + 4), 2 * 2, scored * (4 + 4)}));
}

TEST_F(Crossing, ACheckpointThatIsReadBringsNothingDown) {
  const auto model = make_model("none");
  FlatParams& params = model->pool().trainable();
  const auto optimizer = make_optimizer({}, params.values.shape.count(), kNewestRules, far_);
  Retention all;
  save_checkpoint(folder_.path(), {}, params, *optimizer, all, false);
  const auto slots = static_cast<int64_t>(params.slots.size());
  // The values and both moments of AdamW.
  EXPECT_EQ(crossed([&] { load_checkpoint(checkpoint_file(folder_.path(), 0), params, *optimizer); }),
            (Crossed{3 * slots, 3 * 4 * model->pool().trainable_count(), 0, 0}));
}

TEST_F(Crossing, AMatrixThatTheHostMakesGoesUpAndIsNotBroughtDown) {
  for (const bool is_hashed : {true, false}) {
    Model::Settings settings =
        test::trained_by({.name = is_hashed ? "rps" : "magnitude"}, test::tiny_settings(folder_.path()));
    settings.device = far_;
    if (is_hashed) settings.sharing.mapper = "hashed";
    Model model(settings);
    const DecoderModel& decoder = model.decoder();
    const WeightView& view = *decoder.weight(decoder.block_weights(1).gate);
    ASSERT_TRUE(view.direct({&model.pool()}).empty());
    int64_t pool = 0, matrix = view.shape().count() * 4;
    for (const TrainableSlot& slot : model.pool().trainable().slots) pool = std::max(pool, slot.shape.count() * 4);
    const Tensor w(view.shape(), DType::f32, far_);
    EXPECT_EQ(crossed([&] { view.gather(compute_, {&model.pool()}, w); }), (Crossed{1, matrix, 1, pool}));
    EXPECT_EQ(crossed([&] { view.scatter_add(compute_, w.view(), model.pool()); }),
              (Crossed{1, pool, 2, matrix + pool}));
  }
}

TEST_F(Crossing, NothingCrossesOnTheCpu) {
  const Compute host({.threads = 2}, 4 << 20);
  Model::Settings settings = test::tiny_settings(folder_.path());
  Model model(settings);
  const PackedBatch batch = data_.batch({{0, 1}}, 0);
  EXPECT_EQ(crossed([&] { score_batch(host, model, batch); }), (Crossed{0, 0, 0, 0}));
}

}  // namespace
}  // namespace tessera
