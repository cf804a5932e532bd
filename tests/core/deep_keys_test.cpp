// Keys of very many names, which the parser must not see.

#include "core/deep_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/error_text.h"

namespace tessera {
namespace {

using testing::HasSubstr;

/// "a.a.a": so many names.
std::string key_of(int names, const std::string& name = "a", const std::string& dot = ".") {
  std::string key = name;
  for (int i = 1; i < names; ++i) key += dot + name;
  return key;
}

std::string place_in(const std::string& toml) {
  const auto place = find_deep_key(toml);
  return place ? fmt::format("{}:{}", place->line, place->column) : "none";
}

TEST(DeepKeys, AreFoundWhereTheyBegin) {
  const int most = static_cast<int>(kMostNames);
  EXPECT_EQ(place_in(key_of(most) + " = 1\n"), "none");
  EXPECT_EQ(place_in(key_of(most + 1) + " = 1\n"), "1:1");
  EXPECT_EQ(place_in("[train]\nsteps = 3\n  " + key_of(most + 1) + " = 1\n"), "3:3");
  EXPECT_EQ(place_in("x = 1\n[" + key_of(most + 1) + "]\n"), "2:2");
  EXPECT_EQ(place_in("[[" + key_of(most + 1) + "]]\n"), "1:3");
  EXPECT_EQ(place_in("x = { y = 1, " + key_of(most + 1) + " = 2 }\n"), "1:14");
  EXPECT_EQ(place_in("x = [\n  1,\n  { " + key_of(most + 1) + " = 2 }]\n"), "3:5");
}

TEST(DeepKeys, AreFoundInEverySpellingOfTheirNames) {
  const int many = static_cast<int>(kMostNames) + 1;
  for (const char* name : {"a-b_3", "\"a b\"", "'a.b'", "\"a\\\"b\"", "\"#\"", "\"\"", "\"[\""})
    for (const char* dot : {".", " . ", "\t."}) EXPECT_EQ(place_in(key_of(many, name, dot) + " = 1"), "1:1") << name;
}

TEST(DeepKeys, AreNotFoundInTextsNumbersAndComments) {
  const std::string dots = key_of(100);
  for (const std::string& toml :
       {"# " + dots, "x = \"" + dots + "\"", "x = '" + dots + "'", "x = \"\"\"\n" + dots + "\n\"\" " + dots + "\"\"\"",
        "x = '''\n" + dots + "\n'' " + dots + "'''", "x = \"\\\"" + dots + "\"", "x = \"\"\"\\\"\"\"" + dots + "\"\"\"",
        "x = \"\"\"" + dots + "\"\"\"\"\ny = '" + dots + "'"})
    EXPECT_EQ(place_in(toml), "none") << toml;
  std::string numbers = "x = [1.5";
  for (int i = 0; i < 100; ++i) numbers += ", 0.5";
  EXPECT_EQ(place_in(numbers + "]\n"), "none");
}

TEST(DeepKeys, BehindATextAreFound) {
  const std::string deep = key_of(100) + " = 1";
  for (const char* text :
       {"\"\"\"b\"\"\"\"", "\"\"\"b\"\"\"\"\"", "''''b'''''", "\"\"", "''", "\"\"\"\"\"\"", "\"\\\\\""})
    EXPECT_EQ(place_in(fmt::format("x = {{ a = {}, {} }}", text, deep)),
              fmt::format("1:{}", std::string(text).size() + 13))
        << text;
  EXPECT_EQ(place_in("x = \"never closed\n" + deep), "2:1") << "a text of one line ends with it";
}

TEST(DeepKeys, AreRefusedWithTheirLineBeforeTheParserSeesThem) {
  for (const int names : {33, 60000}) {
    const std::string key = key_of(names);
    for (const std::string& toml : {key + " = 1\n", "[" + key + "]\n", "x = {" + key + " = 1}\n"})
      EXPECT_THAT(test::error_text([&] { parse_toml("\n" + toml, "a.toml"); }),
                  testing::MatchesRegex("a\\.toml:2:[1-6]: a key here has more than 32 names\n.*"));
  }
}

TEST(DeepKeys, TablesWithinTablesAreRefusedOrRead) {
  const std::string key = key_of(static_cast<int>(kMostNames));
  for (const int tables : {1, 8, 300, 60000}) {
    std::string toml = "[" + key + "]\n" + key + " = ";
    for (int i = 0; i < tables; ++i) toml += "{" + key + " = ";
    toml += "1" + std::string(static_cast<size_t>(tables), '}') + "\n";
    const std::string fault = test::error_text([&] { parse_toml(toml, "a.toml"); });
    if (tables <= 8)
      EXPECT_EQ(fault, test::kNothingThrown) << tables;
    else
      EXPECT_THAT(fault, HasSubstr("a.toml:2:")) << tables;
  }
}

}  // namespace
}  // namespace tessera
