// The plan against brute force over all weights: who reads a cell, how often, and with which scales.

#include "model/sharing/rps_plan.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "model/sharing/fold_view.h"
#include "model/sharing/selection.h"
#include "support/random_seed.h"
#include "support/rps.h"

namespace tessera {
namespace {

using test::PageFold;

std::vector<FoldedTensor> tensors_of(const std::vector<WeightSpec>& specs, const std::vector<int>& numbers,
                                     double sigma_0) {
  std::vector<FoldedTensor> tensors;
  for (const int k : numbers)
    tensors.push_back({specs[k].storage,
                       {.rows = specs[k].shape[0], .cols = specs[k].shape[1]},
                       fold_lambda(deviation_of(specs[k].init), sigma_0, FoldScale::exact)});
  return tensors;
}

/// A Llama of random sizes whose embedding and MLP are drawn with other deviations than the rest.
std::vector<WeightSpec> random_specs(std::mt19937& random) {
  const auto size = [&](int most) { return static_cast<int64_t>(1 + random() % static_cast<uint32_t>(most)); };
  test::TinyConfig config{.vocab_size = size(40),
                          .hidden_size = size(20),
                          .intermediate_size = size(30),
                          .layers = size(3),
                          .heads = 2,
                          .kv_heads = 1,
                          .head_dim = 2 * size(4),
                          .tied = random() % 2 == 0};
  auto specs = weight_specs(parse_model_config(test::to_json(config), ""));
  for (WeightSpec& spec : specs) {
    if (spec.role == Role::embedding) spec.init = test::normal(1);
    if (spec.type == "mlp.down_proj") spec.init = test::uniform(0.07);
  }
  return specs;
}

/// Every cell of the plan's runs against a pass over all weights.
void expect_brute_force(const RpsPlan& plan, uint64_t seed) {
  const int64_t m = plan.cells();
  std::vector<CellRun> cells(static_cast<size_t>(m));
  const PageFold page{seed, m};
  for (const FoldedTensor& t : plan.tensors)
    for (int64_t i = t.begin; i < t.begin + t.layout.count(); ++i) {
      CellRun& cell = cells[static_cast<size_t>(page.cell(i))];
      ++cell.readers;
      cell.d += t.lambda * t.lambda;
      cell.magnitude += std::abs(t.lambda);
      ASSERT_EQ(&plan.tensor_of(i), &t);
    }
  const int64_t fewest = plan.weights / m, most = (plan.weights + m - 1) / m;
  int64_t j = 0, read_most = 0;
  for (const CellRun& run : plan.runs) {
    ASSERT_GT(run.end, j);
    for (; j < run.end; ++j) {
      const CellRun& cell = cells[static_cast<size_t>(j)];
      ASSERT_TRUE(cell.readers == fewest || cell.readers == most) << "cell " << j << " has " << cell.readers;
      ASSERT_EQ(run.readers, cell.readers) << "cell " << j;
      ASSERT_EQ(run.d, cell.d) << "cell " << j;  // both add in ascending order of the readers
      ASSERT_EQ(run.magnitude, cell.magnitude) << "cell " << j;
      read_most += cell.readers > fewest;
    }
  }
  ASSERT_EQ(j, m);
  ASSERT_EQ(read_most, plan.weights % m);
}

TEST(RpsPlan, IsBruteForceOverAllWeightsOfRandomModels) {
  const uint32_t seed = test::random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 60; ++round) {
    const auto specs = random_specs(random);
    const auto config = round % 2 ? test::rps(1) : test::rps(1, {"linears", "embedding", "head"});
    const auto tensors = tensors_of(specs, shared_specs(specs, config, ""), 0.04);
    int64_t weights = 0;
    for (const FoldedTensor& t : tensors) weights += t.layout.count();
    for (const int64_t m : {int64_t{1}, int64_t{2}, int64_t{31}, int64_t{97}, weights / 2, weights / 2 + 1, weights - 1,
                            weights, static_cast<int64_t>(1 + random() % static_cast<uint32_t>(weights))}) {
      if (m < 1 || m > weights) continue;
      const uint64_t draw = random();
      SCOPED_TRACE(fmt::format("{} weights on {} cells, seed {}", weights, m, draw));
      expect_brute_force(plan_rps(tensors, m, draw), draw);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(RpsPlan, WithACellAWeightIsTheIdentity) {
  const RpsPlan plan = plan_rps({{"a", {.rows = 5, .cols = 7}, 0.5}, {"b", {.rows = 3, .cols = 11}, 2}}, 68, 9);
  for (int64_t i = 0; i < 68; ++i) {
    EXPECT_EQ(plan.hash.cell(i), i);
    EXPECT_FALSE(plan.hash.negative(i));
  }
  ASSERT_EQ(plan.runs.size(), 2u);
  EXPECT_EQ(plan.runs[0].end, 35);
  EXPECT_EQ(plan.runs[0].d, 0.25);
  EXPECT_EQ(plan.runs[1].magnitude, 2);
  EXPECT_EQ(plan.chunks(), 1);
}

TEST(RpsPlan, SpendsTwoNumbersARunAndFewRunsHoweverManyCells) {
  std::vector<FoldedTensor> tensors;
  for (int k = 0; k < 40; ++k)
    tensors.push_back({fmt::format("t{}", k), {.rows = 1000, .cols = 1000 + k}, 1.0 + k % 3});
  const RpsPlan plan = plan_rps(tensors, 4'000'003, 1);
  EXPECT_LE(plan.runs.size(), 2u * static_cast<size_t>(plan.chunks()) + tensors.size() + 2);
}

TEST(RpsPlan, SignsOfDifferentChunksAreUncorrelated) {
  const RpsPlan plan = plan_rps({{"a", {.rows = 500, .cols = 1000}, 1}}, 50'000, 123321);
  const auto m = static_cast<double>(plan.cells());
  for (int64_t a = 0; a < plan.chunks(); ++a)
    for (int64_t b = a + 1; b < plan.chunks(); ++b) {
      int64_t sum = 0;
      for (int64_t j = 0; j < plan.cells(); ++j)
        sum += plan.hash.negative(plan.hash.reader(a, j)) == plan.hash.negative(plan.hash.reader(b, j)) ? 1 : -1;
      EXPECT_LT(std::abs(static_cast<double>(sum)) / m, 4 / std::sqrt(m)) << a << " " << b;
    }
}

TEST(RpsPlan, ScalesAreRatiosOrTheirNearestPowersOfTwo) {
  EXPECT_EQ(fold_lambda(0.02, 0.04, FoldScale::exact), 0.5);
  EXPECT_EQ(fold_lambda(0.3, 0.04, FoldScale::exact), 0.3 / 0.04);
  EXPECT_EQ(fold_lambda(0.3, 0.04, FoldScale::pow2), 8);  // 7.5
  EXPECT_EQ(fold_lambda(0.055, 0.04, FoldScale::pow2), 1);
  EXPECT_EQ(fold_lambda(0.058, 0.04, FoldScale::pow2), 2);  // 1.45 is beyond sqrt(2)
  EXPECT_EQ(fold_lambda(0.001, 0.04, FoldScale::pow2), 1.0 / 32);
  EXPECT_EQ(deviation_of(test::normal(0.3)), 0.3);
  EXPECT_DOUBLE_EQ(deviation_of(test::uniform(0.3)), 0.3 / std::sqrt(3));
  EXPECT_EQ(deviation_of({Init::Kind::ones, 1, {}}), 0);
}

TEST(RpsPlan, ItsFingerprintKnowsEverythingThatMovesAWeight) {
  const std::vector<FoldedTensor> tensors{{"a", {.rows = 6, .cols = 7}, 0.5}, {"b", {.rows = 8, .cols = 9}, 2}};
  const uint64_t own = plan_rps(tensors, 31, 5).fingerprint();
  EXPECT_EQ(plan_rps(tensors, 31, 5).fingerprint(), own);
  EXPECT_NE(plan_rps(tensors, 31, 6).fingerprint(), own);
  EXPECT_NE(plan_rps(tensors, 30, 5).fingerprint(), own);
  EXPECT_NE(plan_rps({tensors[1], tensors[0]}, 31, 5).fingerprint(), own);
  for (const auto& change : std::vector<std::function<void(FoldedTensor&)>>{
           [](FoldedTensor& t) { t.lambda *= 1 + 1e-15; }, [](FoldedTensor& t) { t.layout = {.rows = 7, .cols = 6}; },
           [](FoldedTensor& t) { t.layout.tile_rows = 2, t.layout.tile_cols = 2; },
           [](FoldedTensor& t) { t.name = "c"; }}) {
    auto altered = tensors;
    change(altered[0]);
    EXPECT_NE(plan_rps(altered, 31, 5).fingerprint(), own);
  }
  RpsPlan moved = plan_rps(tensors, 31, 5);
  moved.tensors[1].begin += 1;
  EXPECT_NE(moved.fingerprint(), own);
}

// 3,000,037,037 weights: beyond 32 bits, signed or not once counted in bytes. Nothing here is as long as that.
class ThreeBillionWeights : public testing::Test {
 protected:
  static constexpr int64_t kCells = 2'999'999;
  static constexpr uint64_t kSeed = 123321;
  ThreeBillionWeights() {
    std::vector<FoldedTensor> tensors;
    for (int k = 0; k < 30; ++k) tensors.push_back({fmt::format("t{}", k), {.rows = 10'000, .cols = 10'000}, 1.0 + k});
    tensors.push_back({"last", {.rows = 37, .cols = 1001}, 0.5});
    plan_ = plan_rps(std::move(tensors), kCells, kSeed);
  }
  RpsPlan plan_;
};

TEST_F(ThreeBillionWeights, ArePlannedWithoutOverflow) {
  EXPECT_EQ(plan_.weights, 3'000'037'037);
  EXPECT_EQ(plan_.tensors.back().begin, 3'000'000'000);
  EXPECT_EQ(plan_.chunks(), 1001);
  const PageFold page{kSeed, kCells};
  for (const int64_t i : {int64_t{2'147'483'647}, int64_t{2'147'483'648}, int64_t{2'999'999'999}, plan_.weights - 1}) {
    EXPECT_EQ(plan_.hash.cell(i), page.cell(i));
    EXPECT_EQ(plan_.hash.reader(i / kCells, page.cell(i)), i);
  }
  EXPECT_EQ(plan_.tensor_of(2'999'999'999).name, "t29");
  int64_t j = 0, reads = 0;
  for (const CellRun& run : plan_.runs) {
    reads += (run.end - j) * run.readers;
    j = run.end;
  }
  EXPECT_EQ(reads, plan_.weights);
  for (const int64_t cell : {int64_t{0}, int64_t{1234}, kCells - 1}) {
    double d = 0;
    for (int64_t c = 0; c < plan_.chunks(); ++c)
      if (const int64_t i = plan_.hash.reader(c, cell); i < plan_.weights) {
        const double lambda = i < 3'000'000'000 ? 1.0 + static_cast<double>(i / 100'000'000) : 0.5;
        d += lambda * lambda;
      }
    const auto run = std::find_if(plan_.runs.begin(), plan_.runs.end(), [&](const CellRun& r) { return r.end > cell; });
    EXPECT_EQ(run->d, d);
  }
}

TEST_F(ThreeBillionWeights, AreReadAndGivenTheirGradientsByTheFormula) {
  ParameterPool pool;
  const SlotId slot = pool.reserve("cells", {.shape = {kCells}, .init = test::normal(1)});
  pool.allocate(2);
  const FoldedTensor& last = plan_.tensors.back();
  const auto factors =
      std::make_shared<const std::vector<FoldFactor>>(std::vector<FoldFactor>{{kCells / 2, 0.5}, {kCells, 0.25}});
  const FoldView view(pool, slot, {plan_.hash, last.begin, last.layout}, factors);
  const PageFold page{kSeed, kCells};
  for (const char* backend : {"reference", "cpu"}) {
    const test::OwnContext own(backend);
    const Tensor w = test::gathered(own.ctx, pool, view);
    pool.zero_grads();
    Tensor dw(view.shape(), DType::f32);
    test::fill_integers(dw, 7);
    view.scatter_add(own.ctx, dw.view(), pool);
    std::vector<float> expected(static_cast<size_t>(kCells));
    for (int64_t e = 0; e < last.layout.count(); ++e) {
      const int64_t j = page.cell(3'000'000'000 + e);
      const auto factor = static_cast<float>((j < kCells / 2 ? 0.5 : 0.25) * page.sign(3'000'000'000 + e));
      ASSERT_EQ(w.as<float>()[e], factor * pool.values(slot).as<float>()[j]) << backend << " element " << e;
      expected[static_cast<size_t>(j)] += factor * dw.as<float>()[e];
    }
    const auto grads = pool.grads(slot).as<float>();
    EXPECT_TRUE(std::equal(grads.begin(), grads.end(), expected.begin())) << backend;
  }
}

}  // namespace
}  // namespace tessera
