// Plans that are made with a model that is only counted are those of a model that is there.

#include <gtest/gtest.h>

#include "support/methods.h"
#include "train/backprop.h"
#include "train/spsa/prober.h"

namespace tessera {
namespace {

struct Case {
  std::string name, sharing, adapter, mapper = "randomfold";
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
};

class CountedPlan : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Model> make_model(Memory memory, bool gradients = true) {
    Model::Settings s = test::tiny_settings(folder_.path());
    s.sharing.method = GetParam().sharing;
    s.sharing.mapper = GetParam().mapper;
    s.sharing.tile_rows = s.sharing.tile_cols = 4;
    s.sharing.min_numel = 0;
    s.sharing.compression = 3;
    s.adapter.method = GetParam().adapter;
    s.adapter.rank = 2;
    s.train_base = s.adapter.method == "none";
    s.gradients = gradients;
    s.memory = memory;
    return std::make_unique<Model>(test::with_plan(s));
  }
  test::TemporaryFolder folder_;
};

TEST_P(CountedPlan, OfAPassIsThatOfAModel) {
  const auto counted = make_model(Memory::counted), held = make_model(Memory::held);
  EXPECT_EQ(plan_score_bytes(*counted, 3, 48, 2), plan_score_bytes(*held, 3, 48, 2));
  EXPECT_EQ(plan_backprop_bytes(*counted, 3, 48, 2), plan_backprop_bytes(*held, 3, 48, 2));
}

TEST_P(CountedPlan, OfAProbeIsThatOfAModel) {
  const auto counted = make_model(Memory::counted, false), held = make_model(Memory::held, false);
  const bool copies = held->bound_adapter() || held->is_shared();
  for (const auto perturb : {Prober::Perturb::copies, Prober::Perturb::layers}) {
    if (copies && perturb == Prober::Perturb::layers) continue;
    Prober of_counted(*counted, perturb, 2), of_held(*held, perturb, 2);
    EXPECT_EQ(of_counted.owned_bytes(), of_held.owned_bytes());
    EXPECT_EQ(of_counted.plan_bytes(3, 48, 2), of_held.plan_bytes(3, 48, 2));
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const test::WeightMethod& method : test::weight_methods())
    all.push_back({method.name, method.is_adapter ? "none" : method.name, method.is_adapter ? method.name : "none"});
  all.insert(
      all.end(),
      {{"mos_on_rps", "rps", "mos"}, {"hashed", "rps", "none", "hashed"}, {"roast", "rps", "none", "roast-tile"}});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Methods, CountedPlan, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tessera
