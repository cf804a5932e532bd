// Sums are added over batches and kept in files by name.

#include "score/loss_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "support/scored.h"

namespace tessera {
namespace {

using test::expect_same_sums;
using test::some_sums;

TEST(LossSums, OfTwoBatchesAreThoseOfBoth) {
  const LossSums both = some_sums(4, some_sums(1));
  for (const SumSpec& spec : sum_specs())
    EXPECT_DOUBLE_EQ(both[spec.name], some_sums(1)[spec.name] + some_sums(4)[spec.name]) << spec.name;
}

/// To the bit: the sums of parts, added, would be others.
TEST(LossSums, AreOneChainOverTheRowsHoweverTheseAreCut) {
  const std::vector<std::vector<TokenRange>> pieces = {{{0, 0}},
                                                       {{0, 0}, {0, 0}},
                                                       {{0, 0, 0, false}, {0, 0, 1, true}},
                                                       {{0, 0, 0, true}, {0, 0, 1, false}, {0, 0, 2, false}},
                                                       {{0, 0}}};
  const auto added = [](const std::vector<TokenRange>& kinds, size_t first, LossSums sums) {
    const PackedBatch batch = test::scored_documents(kinds);
    const ScoredRows scored = scored_rows(batch);
    std::vector<double> nll;
    for (size_t i = 0; i < scored.rows.size(); ++i) nll.push_back(1 / static_cast<double>(3 + first + i));
    return sum_up(batch, scored, ConstView(nll.data(), {static_cast<int64_t>(nll.size())}, DType::f64), scored.labels,
                  std::move(sums));
  };
  std::vector<TokenRange> all;
  LossSums cut;
  std::vector<double> parts;
  for (const auto& kinds : pieces) {
    parts.push_back(added(kinds, all.size(), {})["nll"]);
    cut = added(kinds, all.size(), std::move(cut));
    all.insert(all.end(), kinds.begin(), kinds.end());
  }
  const LossSums whole = added(all, 0, {});
  for (const SumSpec& spec : sum_specs()) EXPECT_EQ(cut[spec.name], whole[spec.name]) << spec.name;
  EXPECT_NE(std::accumulate(parts.begin(), parts.end(), 0.0), whole["nll"]) << "numbers that no order changes";
}

TEST(LossSums, AreKeptByName) {
  LossSums sums = some_sums(3);
  sums["nll"] = 1.0 / 3;
  expect_same_sums(loss_sums_of(Json::parse(to_json(sums).dump(), "sums")), sums);
}

TEST(LossSums, AreWrittenAsFilesOfEveryVersionHaveThem) {
  LossSums sums;
  sums["nll"] = 48.25;
  sums["scored"] = 8;
  sums["choices_nll"] = 3;
  EXPECT_THAT(to_json(sums).dump(),  // those of later metrics come behind
              testing::StartsWith("{\"nll\":48.25,\"scored\":8,\"correct\":0,\"completions\":0,\"exact\":0,"
                                  "\"choices_nll\":3.0,\"choices\":0,\"choices_right\":0"));
}

TEST(LossSums, ThatAFileDoesNotHoldAreNotKnownAndStaySo) {
  const Json older = Json::object().set("nll", 2.5).set("scored", 2).set("correct", 1);
  const Json kept = Json::parse(to_json(loss_sums_of(older)).dump(), "sums");
  EXPECT_EQ(kept.find("choices"), nullptr);
  EXPECT_EQ(kept.at("scored").as_integer(), 2);
  EXPECT_TRUE(std::isnan(loss_sums_of(kept)["choices"]));
}

TEST(LossSums, WithANameThatNoMetricKeepsAreRefused) { EXPECT_THROW(LossSums()["ranks"], InternalError); }

}  // namespace
}  // namespace tessera
