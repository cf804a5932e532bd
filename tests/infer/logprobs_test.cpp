#include "infer/logprobs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "kernels/compute.h"
#include "kernels/cross_entropy.h"
#include "kernels/table.h"

namespace tessera {
namespace {

using testing::ElementsAre;

constexpr int64_t kScratch = int64_t{64} << 20;

/// A head whose logits are large enough that no softmax is flat.
struct Head {
  Tensor hidden, weight, logits;
  std::vector<int32_t> labels;
  std::vector<float> nll;

  Head(const Context& ctx, int64_t rows, int64_t vocab, int64_t dim = 8)
      : hidden({rows, dim}, DType::f32),
        weight({vocab, dim}, DType::f32),
        logits({rows, vocab}, DType::f32),
        nll(rows) {
    std::mt19937 random(static_cast<uint32_t>(rows + vocab));
    for (const Tensor* t : {&hidden, &weight})
      for (float& x : t->as<float>()) x = std::normal_distribution<float>(0, 1.3f)(random);
    for (int64_t n = 0; n < rows; ++n)
      labels.push_back(static_cast<int32_t>(mix64(static_cast<uint64_t>(n)) % static_cast<uint64_t>(vocab)));
    cross_entropy(ctx, {.hidden = hidden.view(),
                        .weight = weight.view(),
                        .labels = labels,
                        .nll = TensorView(nll),
                        .best = {},
                        .dhidden = {},
                        .dweight = {}});
    find_logits(ctx, {hidden.view(), weight.view(), {}}, 0, vocab, logits.view());
  }
};

class LogprobsOn : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Backends, LogprobsOn, testing::Values("cpu", "reference"));

TEST_P(LogprobsOn, HaveTheBitsOfTheTrainingLoss) {
  for (const auto& [rows, vocab] : {std::pair{1, 5000}, {7, 5000}, {3, 49152}, {13, 3072}, {5, 3073}, {5, 17}}) {
    const Compute compute({.backend = GetParam(), .threads = 2}, kScratch);
    const Head head(compute, rows, vocab);
    const auto before = std::vector<float>(head.logits.as<float>().begin(), head.logits.as<float>().end());
    const std::vector<RowNormaliser> found = normalise_rows(compute, head.logits.view());
    ASSERT_EQ(found.size(), static_cast<size_t>(rows));
    for (int64_t n = 0; n < rows; ++n) {
      const float logit = head.logits.view().row<float>(n)[head.labels[n]];
      ASSERT_EQ(std::bit_cast<uint32_t>(found[n].logprob(logit)), std::bit_cast<uint32_t>(-head.nll[n]))
          << n << " of " << rows << ", " << vocab << " columns";
    }
    EXPECT_EQ(std::vector<float>(head.logits.as<float>().begin(), head.logits.as<float>().end()), before);
  }
}

TEST(Logprobs, OfARowDoNotHangOnTheRowsBesideItNorOnTheirStride) {
  const Compute compute({.threads = 3}, kScratch);
  const Head head(compute, 9, 5000);
  const std::vector<RowNormaliser> together = normalise_rows(compute, head.logits.view());
  Tensor wide({1, 6000}, DType::f32);
  for (int64_t n = 0; n < 9; ++n) {
    const float* row = head.logits.view().row<float>(n);
    std::copy(row, row + 5000, wide.as<float>().begin() + 7);
    const RowNormaliser alone = normalise_rows(compute, wide.view().slice_cols(7, 5007)).front();
    EXPECT_EQ(alone.max, together[n].max);
    EXPECT_EQ(alone.log_sum, together[n].log_sum);
  }
}

TEST(Logprobs, TakeMoreRowsThanAreHeldAtOnce) {
  const Compute compute({.threads = 2}, kScratch);
  Tensor logits({kScoredRows + 5, 11}, DType::f32);
  std::mt19937 random(4);
  for (float& x : logits.as<float>()) x = std::normal_distribution<float>(0, 3)(random);
  const auto rows = normalise_rows(compute, logits.view());
  ASSERT_EQ(rows.size(), static_cast<size_t>(kScoredRows + 5));
  for (int64_t n = 0; n < kScoredRows + 5; ++n) {
    double sum = 0;
    for (int64_t c = 0; c < 11; ++c) sum += std::exp(rows[n].logprob(logits.view().row<float>(n)[c]));
    ASSERT_NEAR(sum, 1, 1e-5) << n;
  }
}

TEST(Logprobs, ScratchIsWhatACountingArenaPlans) {
  const Tensor logits({33, 4000}, DType::f32);
  const Compute compute({.threads = 2}, kScratch), plan = Compute::counting({}, 2);
  normalise_rows(compute, logits.view());
  EXPECT_EQ(normalise_rows(plan, logits.view()).size(), 33u);
  EXPECT_EQ(plan.peak_bytes(), compute.peak_bytes());
}

TEST(Logprobs, OfNoRowsAreNone) {
  const Compute compute({}, kScratch);
  const Tensor logits({1, 5}, DType::f32);
  EXPECT_TRUE(normalise_rows(compute, logits.view().slice_rows(0, 0)).empty());
}

std::vector<int32_t> ids_of(const std::vector<TokenLogprob>& list) {
  std::vector<int32_t> ids;
  for (const TokenLogprob& entry : list) ids.push_back(entry.id);
  return ids;
}

TEST(Logprobs, TellTheTokenAndTheBestInOrder) {
  const std::vector<float> logits = {1, 3, -2, 3, 2};
  const RowNormaliser row{3, 0.5f};
  const TokenLogprobs told = logprobs_of(logits, row, 2, 3);
  EXPECT_EQ(told.token.id, 2);
  EXPECT_EQ(told.token.logprob, -5.5f);
  EXPECT_THAT(ids_of(told.top), ElementsAre(1, 3, 4));
  EXPECT_EQ(told.top[0].logprob, -0.5f);
  EXPECT_EQ(told.top[2].logprob, -1.5f);
  EXPECT_TRUE(logprobs_of(logits, row, 2, 0).top.empty());
  EXPECT_THAT(ids_of(logprobs_of(logits, row, 1, 100).top), ElementsAre(1, 3, 4, 0, 2));
}

TEST(Logprobs, BestOfALongRowAreThoseOfAWholeSort) {
  std::mt19937 random(8);
  std::vector<float> logits(20000);
  for (float& x : logits) x = std::round(std::normal_distribution<float>(0, 20)(random));
  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  for (const int64_t k : {1, 2, 5, 20, 1000}) {
    const auto told = logprobs_of(logits, {100, 1}, 17, k);
    EXPECT_EQ(ids_of(told.top), std::vector<int32_t>(ids.begin(), ids.begin() + k));
  }
}

}  // namespace
}  // namespace tessera
