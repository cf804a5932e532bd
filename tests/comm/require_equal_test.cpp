#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/communicator.h"
#include "core/error.h"
#include "pretended_ranks.h"
#include "world.h"

namespace tessera::test {
namespace {

std::string complaint(std::vector<std::string> texts) {
  PretendedRanks comm(texts);
  try {
    require_equal(comm, "the recipe", texts[0]);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(RequireEqual, AcceptsEqualTexts) {
  EXPECT_EQ(complaint({"a", "a", "a"}), "");
  EXPECT_EQ(complaint({"", ""}), "");
}

TEST(RequireEqual, NamesWhatDiffersAndWhichRanks) {
  EXPECT_EQ(complaint({"4f2a", "4f2a", "77aa", "4f2a", "4f2a", "4f2a", "77aa"}),
            "the ranks differ in the recipe\n"
            "  ranks 0, 1, 3 to 5: \"4f2a\"\n"
            "  ranks 2, 6: \"77aa\"\n"
            "  every rank must run the same program on the same recipe and the same files");
}

TEST(RequireEqual, ShowsTheLineThatDiffersOfALongText) {
  const std::string head(500, '#');
  EXPECT_THAT(complaint({head + "\nrank = 8\nend", head + "\nrank = 16\nend"}),
              ::testing::HasSubstr("rank 0: ...\"rank = 8\"...\n  rank 1: ...\"rank = 16\"...\n"));
  EXPECT_THAT(complaint({head + "x", head}), ::testing::HasSubstr("rank 0: ...\"########################x\"\n"));
}

TEST(RequireEqual, ShowsAFewOfManyDifferentTexts) {
  EXPECT_THAT(complaint({"a", "b", "c", "d", "e", "f"}), ::testing::HasSubstr("rank 3: \"d\"\n  and 2 more\n"));
}

TEST(RequireEqual, ThrowsOnEveryRankOfTheWorldOrOnNone) {
  const bool alone = world().size() == 1;
  EXPECT_NO_THROW(require_equal(world(), "the data", "same"));
  const std::string mine = world().rank() == world().size() - 1 ? "other" : "same";
  bool threw = false;
  try {
    require_equal(world(), "the data", mine);
  } catch (const UserError& error) {
    threw = true;
    EXPECT_THAT(error.what(), ::testing::HasSubstr(fmt::format("rank {}: \"other\"", world().size() - 1)));
  }
  EXPECT_EQ(threw, !alone);
}

}  // namespace
}  // namespace tessera::test
