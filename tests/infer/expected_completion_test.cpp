// What counts as a right continuation.

#include "infer/expected_completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/paths.h"

namespace tessera {
namespace {

using testing::ElementsAre;

constexpr const char* kWords = R"({"added_tokens": [{"id": 1, "content": "<end>", "special": true}],
  "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": {"type": "WordLevel", "unk_token": "?",
  "vocab": {"?": 0, "<end>": 1, "in": 2, "hall": 3, "way": 4, "where": 5}}})";

class ExpectedCompletions : public testing::Test {
 protected:
  ExpectedCompletions() { test::write_file(folder_ / "tokenizer.json", kWords); }

  ExpectedCompletion expected(const std::string& completion) const {
    DataConfig config;
    config.completion_template = "{completion}";  // its text's special tokens are parsed
    return expected_completion(tokenizer(), config, {"where", completion}, kStop);
  }
  bool right(const std::string& completion, std::vector<int32_t> ids, Finish finish) const {
    return is_right(tokenizer(), std::vector<int32_t>{5}, expected(completion),
                    {.ids = std::move(ids), .finish = finish});
  }
  Tokenizer tokenizer() const { return Tokenizer::load(folder_.path()); }

  static constexpr int32_t kStop[] = {1};
  test::TemporaryFolder folder_;
};

TEST_F(ExpectedCompletions, GoUpToTheEndThatATemplateWrites) {
  EXPECT_THAT(expected("in hall<end>").ids, ElementsAre(2, 3));
  EXPECT_TRUE(expected("in hall<end>").ends);
  EXPECT_THAT(expected("in hall<end> way").ids, ElementsAre(2, 3)) << "nothing is generated behind an end";
  EXPECT_THAT(expected("in hall").ids, ElementsAre(2, 3));
  EXPECT_FALSE(expected("in hall").ends);
}

TEST_F(ExpectedCompletions, WithAnEndAreRightWhenTheyAreWhole) {
  EXPECT_TRUE(right("in hall<end>", {2, 3}, Finish::stop));
  EXPECT_FALSE(right("in hall<end>", {2, 3, 4}, Finish::stop)) << "in hall way";
  EXPECT_FALSE(right("in hall<end>", {2}, Finish::stop));
  EXPECT_FALSE(right("in hall<end>", {2, 3}, Finish::max_new_tokens)) << "who knows what would have come";
  EXPECT_FALSE(right("in hall<end>", {2, 3}, Finish::failed));
}

TEST_F(ExpectedCompletions, WithoutAnEndAreRightAsFarAsTheyGo) {
  EXPECT_TRUE(right("in hall", {2, 3}, Finish::stop));
  EXPECT_TRUE(right("in hall", {2, 3, 4}, Finish::max_new_tokens));
  EXPECT_FALSE(right("in hall", {2, 4, 3}, Finish::max_new_tokens));
  EXPECT_FALSE(right("in hall", {2}, Finish::stop));
}

}  // namespace
}  // namespace tessera
