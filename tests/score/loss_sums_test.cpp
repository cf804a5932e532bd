// Sums are added over batches and kept in files by name.

#include "score/loss_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "support/scored.h"

namespace tessera {
namespace {

using test::expect_same_sums;
using test::some_sums;

TEST(LossSums, OfTwoBatchesAreThoseOfBoth) {
  LossSums both = some_sums(1);
  both += some_sums(4);
  for (const SumSpec& spec : sum_specs())
    EXPECT_EQ(both[spec.name], some_sums(1)[spec.name] + some_sums(4)[spec.name]) << spec.name;
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
