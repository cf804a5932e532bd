// The two methods that Stable-RPS is compared with, in training: gradients are the plain model's, masked or summed, and
// without compression a run is the plain run, to the bit.

#include <gtest/gtest.h>

#include "support/batches.h"
#include "support/engine.h"
#include "support/tiny_model.h"
#include "train/backprop.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

class Baselines : public testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<Model> load(const SharingConfig& sharing, DType dtype) {
    Model::Settings settings = test::tiny_settings(folder_.path(), {.layers = 4, .tied = GetParam()});
    settings.sharing = sharing;
    settings.parameters = settings.activations = dtype;
    settings.train_base = true;
    return std::make_unique<Model>(settings);
  }
  static SharingConfig sharing(const std::string& method, double compression) {
    SharingConfig config;
    config.method = method;
    config.compression = compression;
    config.min_numel = 1;
    config.shared = {"linears", "embedding"};
    return config;
  }
  static void backward(Model& model, const std::string& backend) {
    test::Engine own(backend);
    model.pool().zero_grads();
    backprop_batch(own.ctx, model, test::packed_batch());
  }
  /// A plain model with the other's weights.
  std::unique_ptr<Model> copy_of(Model& model) {
    test::Engine own("reference");
    auto plain = load({}, model.pool().dtype());
    for (size_t i = 0; i < plain->decoder().specs().size(); ++i)
      if (const WeightSpec& spec = plain->decoder().specs()[i]; spec.name == spec.storage)
        model.decoder()
            .weight(static_cast<int>(i))
            ->gather(own.ctx, {&model.pool()}, test::slot_of(plain->pool(), spec.name));
    return plain;
  }
  /// Sᵀ of the plain model's gradients.
  static void contract(Model& plain, Model& model) {
    test::Engine own("reference");
    model.pool().zero_grads();
    for (size_t i = 0; i < plain.decoder().specs().size(); ++i)
      if (const WeightSpec& spec = plain.decoder().specs()[i]; spec.name == spec.storage)
        model.decoder()
            .weight(static_cast<int>(i))
            ->scatter_add(own.ctx, test::slot_of(plain.pool(), spec.name, true), model.pool());
  }
  /// The gradient's norm is summed over these, one after the other.
  static void expect_same_parts(Model& a, Model& b) {
    const FlatParams &x = a.pool().trainable(), &y = b.pool().trainable();
    ASSERT_EQ(x.parts.size(), y.parts.size());
    for (size_t k = 0; k < x.parts.size(); ++k)
      ASSERT_TRUE(test::same_bytes(x.grads.slice_rows(x.parts[k].begin, x.parts[k].end),
                                   y.grads.slice_rows(y.parts[k].begin, y.parts[k].end)));
  }
  static void take(Optimizer& optimizer, Model& model, int64_t step) {
    test::Engine own;
    optimizer.step(own.ctx, model.pool().trainable(), {.step = step, .lr = 0.01f, .grad_scale = 0.05f});
  }
  test::TemporaryFolder folder_;
};

TEST_P(Baselines, GradientsAreThePlainModelsMaskedOrSummed) {
  for (const char* method : {"depth", "magnitude"}) {
    const auto model = load(sharing(method, 3), DType::f64);
    const auto plain = copy_of(*model);
    backward(*model, "reference");
    backward(*plain, "reference");
    const auto grads = model->pool().trainable().grads.as<double>();
    const std::vector<double> ours(grads.begin(), grads.end());
    contract(*plain, *model);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      difference = std::max(difference, std::abs(ours[i] - grads[i]));
      norm = std::max(norm, std::abs(grads[i]));
    }
    EXPECT_GT(norm, 1e-3) << method;
    EXPECT_LE(difference, 1e-13 * norm) << method;
  }
}

TEST_P(Baselines, WithoutCompressionTrainTheOrdinaryModelToTheBit) {
  for (const char* method : {"depth", "magnitude"}) {
    const auto model = load(sharing(method, 1), DType::f32), plain = load({}, DType::f32);
    OptimizerConfig config;
    config.weight_decay = 0.1;
    const auto steps = make_optimizer(config, model->pool().trainable().values.shape.count()),
               plain_steps = make_optimizer(config, plain->pool().trainable().values.shape.count());
    for (int64_t step = 1; step <= 10; ++step) {
      backward(*model, "cpu");
      backward(*plain, "cpu");
      expect_same_parts(*model, *plain);
      take(*steps, *model, step);
      take(*plain_steps, *plain, step);
    }
    const auto trained = copy_of(*model);
    EXPECT_TRUE(test::same_bytes(trained->pool().trainable().values, plain->pool().trainable().values)) << method;
    EXPECT_FALSE(test::same_bytes(trained->pool().trainable().values, load({}, DType::f32)->pool().trainable().values));
  }
}

INSTANTIATE_TEST_SUITE_P(TiedAndNot, Baselines, testing::Bool(),
                         [](const auto& info) { return info.param ? "Tied" : "Untied"; });

}  // namespace
}  // namespace tessera
