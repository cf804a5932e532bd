#include "core/json_place.h"

#include <gtest/gtest.h>

#include "core/json.h"

namespace tessera {
namespace {

constexpr std::string_view kText = R"( { "a": 1,
  "text": "a \" brace } and a bracket ] \\",
  "list": [ 1, [2,
    3], {"x": {},
      "yé": [
        "[", true, null
      ]} ],
  "empty": [], "nothing": {},
  "last": -1.5e3
})";

int64_t at(const JsonPath& path) { return line_of(kText, path); }

TEST(JsonPlace, IsTheLineOfTheMemberOrElement) {
  ASSERT_NO_THROW(Json::parse(kText, "text"));
  EXPECT_EQ(at({}), 1);
  EXPECT_EQ(at({"a"}), 1);
  EXPECT_EQ(at({"text"}), 2);
  EXPECT_EQ(at({"list", int64_t{0}}), 3);
  EXPECT_EQ(at({"list", int64_t{1}, int64_t{1}}), 4);
  EXPECT_EQ(at({"list", int64_t{2}}), 4);
  EXPECT_EQ(at({"list", int64_t{2}, "yé"}), 5);
  EXPECT_EQ(at({"list", int64_t{2}, "yé", int64_t{2}}), 6);
  EXPECT_EQ(at({"empty"}), 8);
  EXPECT_EQ(at({"nothing"}), 8);
  EXPECT_EQ(at({"last"}), 9);
}

TEST(JsonPlace, OfAPathThatLeadsNowhereIsTheLastValueOnIt) {
  EXPECT_EQ(at({"missing"}), 1);
  EXPECT_EQ(at({"list", int64_t{2}, "missing"}), 4);
  EXPECT_EQ(at({"list", int64_t{9}}), 3);
  EXPECT_EQ(at({"empty", int64_t{0}}), 8);
  EXPECT_EQ(at({"text", "inside"}), 2);
  EXPECT_EQ(at({int64_t{0}}), 1);
}

TEST(JsonPlace, KeysAreComparedAsTheyAreRead) {
  EXPECT_EQ(line_of("\xEF\xBB\xBF\n{\n\"b\": 1,\n\"\\u0061\\n\": 2}", JsonPath{"a\n"}), 4);
  EXPECT_EQ(line_of("[1,\r\n2,\r\n3]", JsonPath{int64_t{2}}), 3);
}

}  // namespace
}  // namespace tessera
