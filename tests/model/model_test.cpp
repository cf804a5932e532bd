#include "model/model.h"

#include <gmock/gmock.h>

#include "support/tiny_model.h"

namespace tessera::test {
namespace {

TEST(Model, KeepsTheNumberTypesOfPoolAndActivations) {
  const TemporaryFolder folder;
  Model::Settings settings = tiny_settings(folder.path());
  settings.train_base = true;
  settings.parameters = settings.activations = DType::f64;
  Model model(settings);
  EXPECT_EQ(model.pool().dtype(), DType::f64);
  EXPECT_EQ(model.pool().trainable().grads.dtype, DType::f64);
  EXPECT_EQ(model.decoder().activations(), DType::f64);
}

TEST(Model, RefusesActivationsOfAnotherTypeThanThePool) {
  const TemporaryFolder folder;
  Model::Settings settings = tiny_settings(folder.path());
  settings.activations = DType::bf16;
  try {
    const Model model(settings);
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("a pool in f32 and activations in bf16"));
  }
}

}  // namespace
}  // namespace tessera::test
