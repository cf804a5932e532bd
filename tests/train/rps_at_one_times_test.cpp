// Stable-RPS at 1x is the ordinary run, to the bit.

#include "core/error.h"
#include "train/rps_training.h"

namespace tessera {
namespace {

using namespace test;

class RpsAtOneTimes : public RpsTraining, public testing::WithParamInterface<std::tuple<bool, bool, std::string>> {};

TEST_P(RpsAtOneTimes, IsTheOrdinaryRunToTheBitFor200Steps) {
  const auto& [tied, pretrained, scale] = GetParam();
  config_.train.clip = 0.5;
  config_.optimizer.weight_decay = 0.1;
  for (const auto& shared : {std::vector<std::string>{"linears", "embedding"}, {"linears"}}) {
    SharingConfig sharing = rps(1, shared);
    sharing.scale = scale;
    Model source(settings({}, {.tied = tied}));
    const auto make = [&](const SharingConfig& s) {
      return std::make_unique<Model>(pretrained ? given(exported(source), s) : settings(s, {.tied = tied}));
    };
    const auto dense = make({}), folded = make(sharing);
    EXPECT_EQ(test::slot_of(folded->pool(), "rps.pool").shape.count() + 7 * 16 +
                  (tied ? 0 : 23 * 16) * (shared.size() == 1 ? 2 : 1) + (tied && shared.size() == 1 ? 23 * 16 : 0),
              dense->pool().trainable_count());
    const auto expected = train(*dense, 200), found = train(*folded, 200);
    int clipped = 0;
    for (size_t step = 0; step < 200; ++step) {
      ASSERT_EQ(found[step].loss, expected[step].loss) << "step " << step + 1;
      const double norm = expected[step].extra.at("grad_norm").as_number();
      ASSERT_EQ(found[step].extra.at("grad_norm").as_number(), norm) << "step " << step + 1;
      clipped += norm > 0.5;
    }
    EXPECT_GT(clipped, 10);
    EXPECT_LT(expected.back().loss, 0.5 * expected.front().loss) << "something was learned";
    expect_same_weights(*folded, *dense, shared.size() == 1 ? "linears" : "linears and embedding");
  }
}

INSTANTIATE_TEST_SUITE_P(Runs, RpsAtOneTimes,
                         testing::Combine(testing::Bool(), testing::Bool(), testing::Values("auto", "exact")),
                         [](const auto& info) {
                           return fmt::format("{}_{}_{}", std::get<0>(info.param) ? "tied" : "untied",
                                              std::get<1>(info.param) ? "given" : "drawn", std::get<2>(info.param));
                         });

}  // namespace
}  // namespace tessera
