#include "infer/stop_ids.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "support/paths.h"

namespace tessera {
namespace {

using testing::ElementsAre;

class StopIds : public testing::Test {
 protected:
  StopIds() {
    test::write_file(folder_ / "tokenizer.json",
                     R"({"added_tokens": [], "model": {"type": "WordLevel", "unk_token": "?",
      "vocab": {"?": 0, "</s>": 1, "<eot>": 2, "a": 3}}})");
    test::write_file(folder_ / "tokenizer_config.json", R"({"eos_token": "</s>"})");
  }
  std::vector<int32_t> ids() const { return stop_ids({folder_.path()}, Tokenizer::load(folder_.path())); }
  void write(const std::string& name, const std::string& text) { test::write_file(folder_ / name, text); }

  test::TemporaryFolder folder_;
};

TEST_F(StopIds, AreTheTokenizersAndEveryOneOfBothConfigurations) {
  EXPECT_THAT(ids(), ElementsAre(1));
  write("config.json", R"({"eos_token_id": 2})");
  EXPECT_THAT(ids(), ElementsAre(1, 2));
  write("generation_config.json", R"({"eos_token_id": [7, 2, 5]})");
  EXPECT_THAT(ids(), ElementsAre(1, 2, 5, 7));
  write("config.json", R"({"eos_token_id": null})");
  write("tokenizer_config.json", "{}");
  EXPECT_THAT(ids(), ElementsAre(2, 5, 7));
}

TEST_F(StopIds, AreAlsoWhatTheTokenizerPutsBehindAText) {
  write(
      "tokenizer.json",
      R"({"added_tokens": [], "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "</s>": 1, "<eot>": 2}},
    "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<eot>"}}],
      "pair": [], "special_tokens": {"<eot>": {"id": "<eot>", "ids": [2], "tokens": ["<eot>"]}}}})");
  EXPECT_THAT(ids(), ElementsAre(1, 2));
}

TEST_F(StopIds, OfAnotherKindAreRefusedWithTheirFile) {
  for (const char* value : {"\"</s>\"", "1.5", "[1, [2]]", "12345678901"}) {
    write("generation_config.json", fmt::format(R"({{"eos_token_id": {}}})", value));
    try {
      ids();
      FAIL() << value;
    } catch (const UserError& error) {
      EXPECT_EQ(error.where(), (folder_ / "generation_config.json").string());
    }
  }
}

}  // namespace
}  // namespace tessera
