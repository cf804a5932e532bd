#include "io/regex.h"

#include <gtest/gtest.h>

#include "support/error_text.h"

namespace tessera {
namespace {

using test::error_text;

TEST(Regex, IsFoundAnywhereInAName) {
  EXPECT_TRUE(Regex("layers\\.[02]\\.").is_found_in("model.layers.2.mlp.up_proj.weight"));
  EXPECT_FALSE(Regex("layers\\.[02]\\.").is_found_in("model.layers.12.mlp.up_proj.weight"));
  EXPECT_TRUE(Regex("^model|head$").is_found_in("model.norm"));
  EXPECT_TRUE(Regex("").is_found_in(""));
  EXPECT_FALSE(
      Regex("a").is_found_in("\xff"
                             "a"));
}

TEST(Regex, FaultsOfThePatternTellTheirPlace) {
  EXPECT_EQ(error_text([] { Regex("mlp("); }), "missing closing parenthesis at byte 4");
  EXPECT_EQ(error_text([] { Regex("a**"); }).find("quantifier"), 0u);
}

TEST(Regex, APatternThatIsTooLargeIsAnError) {
  EXPECT_EQ(error_text([] { Regex(std::string(100'000, '.')); }), "regular expression is too large at byte 100000");
  EXPECT_EQ(error_text([] { Regex(std::string(100'000, '(')); }), "parentheses are too deeply nested at byte 251");
}

TEST(Regex, ASearchThatWouldNotEndIsGivenUp) {
  const std::string name = "model.layers.0.self_attn.q_proj.weight";
  EXPECT_FALSE(Regex("(.*)*z").is_found_in(name));
  EXPECT_EQ(error_text([&] {
              Regex("^(\\w+\\.?)*[!?]").is_found_in(name + std::string(60, 'a'));
            }).find("the search for \"^(\\w+\\.?)*[!?]\" in \"model.layers.0."),
            0u);
}

}  // namespace
}  // namespace tessera
