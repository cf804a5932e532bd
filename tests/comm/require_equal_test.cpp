#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/communicator.h"
#include "world.h"

namespace tessera::test {
namespace {

/// A world of as many ranks as there are texts, seen from its first rank.
class PretendedRanks : public Communicator {
 public:
  explicit PretendedRanks(std::vector<std::string> texts) : texts_(std::move(texts)) {}
  int rank() const override { return 0; }
  int size() const override { return static_cast<int>(texts_.size()); }
  int local_rank() const override { return 0; }
  int local_size() const override { return size(); }
  void all_reduce_sum(std::span<float>) override {}
  void all_reduce_sum(std::span<double>) override {}
  void all_reduce_max(std::span<double>) override {}
  void broadcast(std::vector<std::byte>&, int) override {}
  void exchange(std::span<const std::byte>, int, std::span<std::byte>, int) override {}
  void barrier() override {}
  std::unique_ptr<Communicator> split(int, int) override { return self_communicator(); }
  void abort(int) override { std::abort(); }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte>) override {
    std::vector<std::vector<std::byte>> all;
    for (const std::string& text : texts_) {
      const auto bytes = std::as_bytes(std::span(text));
      all.emplace_back(bytes.begin(), bytes.end());
    }
    return all;
  }

 private:
  std::vector<std::string> texts_;
};

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
