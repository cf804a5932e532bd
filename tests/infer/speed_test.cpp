// Speeds are measured of passes that a plan of memory has room for.

#include "infer/speed.h"

#include <gtest/gtest.h>

#include "kernels/compute.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

constexpr SpeedTrial kTrial{.prompt = 40, .context = 8, .next = 5, .repeats = 3};

class Speeds : public testing::Test {
 protected:
  Speeds() : model_(test::tiny_settings(folder_.path())) {}
  test::TemporaryFolder folder_;
  Model model_;
};

TEST_F(Speeds, AreMeasuredInExactlyTheMemoryPlanned) {
  const Compute compute({.threads = 2}, plan_speed_bytes(model_, kTrial, 2));
  const auto speed = measure_speed(compute, model_, kTrial, {});
  ASSERT_TRUE(speed);
  EXPECT_GT(speed->prefill, 0);
  EXPECT_GT(speed->decode, 0);
  EXPECT_EQ(compute.peak_bytes(), plan_speed_bytes(model_, kTrial, 2));
}

TEST_F(Speeds, ArePlannedOfAModelThatIsOnlyLaidOut) {
  Model::Settings settings = test::tiny_settings(folder_.path());
  settings.memory = Memory::counted;
  Model counted(settings);
  EXPECT_EQ(plan_speed_bytes(counted, kTrial, 2), plan_speed_bytes(model_, kTrial, 2));
}

TEST_F(Speeds, AreNothingWhenAStopIsAskedFor) {
  const Compute compute({.threads = 2}, plan_speed_bytes(model_, kTrial, 2));
  int asked = 0;
  EXPECT_FALSE(measure_speed(compute, model_, kTrial, [&] { return ++asked == 2; }));
  EXPECT_EQ(asked, 2);
}

}  // namespace
}  // namespace tessera
