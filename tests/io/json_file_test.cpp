#include "io/json_file.h"

#include <gtest/gtest.h>

#include "support/error_text.h"
#include "support/paths.h"

namespace tessera {
namespace {

using test::error_text;

TEST(Configuration, AKeyTwiceInOneObjectIsRefused) {
  EXPECT_EQ(error_text([] { parse_configuration(R"({"a": 1, "b": 2, "a": 1})", "config.json"); }),
            "config.json: the key \"a\" appears twice in one object\n  keep the one that is meant");
  EXPECT_EQ(error_text([] { parse_configuration(R"({"x": [{"rope": {"a": 1, "a": 2}}]})", "config.json"); }),
            "config.json: the key \"a\" appears twice in one object\n  keep the one that is meant");
  EXPECT_EQ(parse_configuration(R"({"a": {"b": 1}, "c": {"b": 2}})", "x").at("c").at("b").as_integer(), 2);
}

TEST(Configuration, OfAFileNamesTheFile) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "a.json", R"({"a": 1, "a": 2})");
  EXPECT_EQ(error_text([&] { read_configuration(folder / "a.json"); }).find((folder / "a.json").string() + ": the key"),
            0u);
}

}  // namespace
}  // namespace tessera
