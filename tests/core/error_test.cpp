#include "core/error.h"

#include <gtest/gtest.h>

#include "support/paths.h"

namespace tessera {
namespace {

TEST(UserError, PutsPlaceMessageAndIndentedHintTogether) {
  const UserError error("a.toml:3:1", "unknown key \"x\"", "known keys: y, z\ndid you mean \"y\"?");
  EXPECT_STREQ(error.what(), "a.toml:3:1: unknown key \"x\"\n  known keys: y, z\n  did you mean \"y\"?");
  EXPECT_EQ(error.where(), "a.toml:3:1");
  EXPECT_EQ(error.message(), "unknown key \"x\"");
  EXPECT_EQ(error.hint(), "known keys: y, z\ndid you mean \"y\"?");
  EXPECT_STREQ(UserError("", "no place").what(), "no place");
}

TEST(UserError, TellsAKeyOnceThatPlaceAndMessageName) {
  const auto text = [](const char* where, const char* what) { return std::string(UserError(where, what).what()); };
  EXPECT_EQ(text("command line: data.train", "data.train \"x\" does not exist"),
            "command line: data.train \"x\" does not exist");
  EXPECT_EQ(text("command line: job", "job is \"x\""), "command line: job is \"x\"");
  EXPECT_EQ(text("adapter.rank", "adapter.rank is 0"), "adapter.rank is 0");
  EXPECT_EQ(text("command line: train.steps", "the run has train.steps_done 3"),
            "command line: train.steps: the run has train.steps_done 3");
  EXPECT_EQ(text("command line: train.batch", "too much"), "command line: train.batch: too much");
  EXPECT_EQ(text("run", "this run is over"), "run: this run is over");  // a folder
  EXPECT_EQ(text("a.toml:3:1", "data.train \"x\" does not exist"), "a.toml:3:1: data.train \"x\" does not exist");
}

TEST(Check, SaysWhatWasFound) {
  const int found = 3;
  EXPECT_NO_THROW(TS_CHECK(found == 3, "found {}", found));
  try {
    TS_CHECK(found == 4, "found {}, expected {}", found, 4);
    FAIL() << "nothing was thrown";
  } catch (const InternalError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("error_test.cpp:"), std::string::npos) << text;
    EXPECT_NE(text.find("check failed: found == 4: found 3, expected 4"), std::string::npos) << text;
  }
}

TEST(Check, NamesThePlaceInTheSourceTreeAndNotTheBuildMachine) {
  try {
    TS_CHECK(false, "they differ");
    FAIL() << "nothing was thrown";
  } catch (const InternalError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("tests/core/error_test.cpp:"), std::string::npos) << text;
    EXPECT_EQ(text.find(test::source_dir().string()), std::string::npos) << text;
  }
}

TEST(NearestName, FindsTypingMistakes) {
  const std::vector<std::string> known = {"rank", "shards", "private_rank", "alpha"};
  EXPECT_EQ(nearest_name("shard", known), "shards");
  EXPECT_EQ(nearest_name("rnak", known), "rank");
  EXPECT_EQ(nearest_name("privat_rnk", known), "private_rank");
  EXPECT_EQ(nearest_name("shards_per_vectr", known), "shards");
}

TEST(NearestName, GivesNothingWhenNothingIsNear) {
  EXPECT_EQ(nearest_name("learning_rate", {"rank", "alpha"}), "");
  EXPECT_EQ(nearest_name("anything", {}), "");
  EXPECT_EQ(nearest_name("x", {"warmup"}), "");
}

TEST(NearestName, PrefersTheExactName) { EXPECT_EQ(nearest_name("b", {"a", "b", "c"}), "b"); }

}  // namespace
}  // namespace tessera
