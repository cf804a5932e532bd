#include "core/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "core/error.h"

namespace tessera {
namespace {

TEST(Json, ReadsEveryKindOfValue) {
  const Json json = Json::parse(R"({"a": [1, -2.5, "x\u00e9\n", true, null], "b": {"c": 9007199254740993}})", "test");
  const Json::Array& items = json.at("a").items();
  ASSERT_EQ(items.size(), 5u);
  EXPECT_EQ(items[0].as_integer(), 1);
  EXPECT_EQ(items[0].as_number(), 1.0);
  EXPECT_EQ(items[1].as_number(), -2.5);
  EXPECT_EQ(items[2].as_string(), "x\xc3\xa9\n");
  EXPECT_TRUE(items[3].as_bool());
  EXPECT_TRUE(items[4].is_null());
  EXPECT_EQ(json.at("b").at("c").as_integer(), 9007199254740993);  // not through a double
}

TEST(Json, KeepsTheOrderOfTheFileAndDuplicateKeys) {
  const Json json = Json::parse(R"({"z": 1, "a": 2, "z": 3})", "test");
  ASSERT_EQ(json.members().size(), 3u);
  EXPECT_EQ(json.members()[0].first, "z");
  EXPECT_EQ(json.members()[1].first, "a");
  EXPECT_EQ(json.members()[2].second.as_integer(), 3);
}

TEST(Json, FaultsNameTheSourceAndThePosition) {
  for (const char* text : {"", "{", "[1,]", "{\"a\" 1}", "nul", "1 2", "\"\xff\"", "[01]", "{\"a\":1}}"}) {
    try {
      Json::parse(text, "config.json");
      FAIL() << text << " was taken";
    } catch (const UserError& error) {
      EXPECT_EQ(error.where(), "config.json");
      EXPECT_EQ(error.message().find("not valid JSON at byte "), 0u) << error.message();
    }
  }
}

TEST(Json, OfOneLineTheByteTellsThePlaceAlone) {
  const auto fault = [](const std::string& text) {
    try {
      Json::parse(text, "data.jsonl:7");
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(fault("{\"a\" 1}").find("data.jsonl:7: not valid JSON at byte 6: syntax error"), 0u) << fault("{\"a\" 1}");
  EXPECT_EQ(fault("{\"a\" 1}").find("line"), std::string::npos);
  EXPECT_NE(fault("{\n\"a\" 1}").find("at line 2"), std::string::npos);
}

TEST(Json, RefusesToNestWithoutEnd) {
  const std::string deep(100000, '[');
  EXPECT_THROW(Json::parse(deep, "test"), UserError);
  const std::string fine = std::string(500, '[') + std::string(500, ']');
  EXPECT_NO_THROW(Json::parse(fine, "test"));
}

TEST(Json, ANumberBeyond64BitsIsNoInteger) {
  const Json json = Json::parse("[18446744073709551615, 9223372036854775807]", "test");
  EXPECT_FALSE(json.items()[0].is_integer());
  EXPECT_EQ(json.items()[0].as_number(), 18446744073709551615.0);
  EXPECT_EQ(json.items()[1].as_integer(), std::numeric_limits<int64_t>::max());
}

TEST(Json, ErrorsSayWhatWasExpectedAndFound) {
  const auto message = [](auto access) -> std::string {
    try {
      access();
    } catch (const UserError& error) {
      return error.message();
    }
    return "nothing was thrown";
  };
  const Json json = Json::parse(R"({"n": 1.5, "none": null})", "test");
  EXPECT_EQ(message([&] { json.at("n").as_string(); }), "expected a string, found a number");
  EXPECT_EQ(message([&] { json.at("n").as_integer(); }), "expected an integer, found a number");
  EXPECT_EQ(message([&] { json.as_bool(); }), "expected a boolean, found an object");
  EXPECT_EQ(message([&] { json.items(); }), "expected an array, found an object");
  EXPECT_EQ(message([&] { Json("x").members(); }), "expected an object, found a string");
  EXPECT_EQ(message([&] { json.at("m"); }), "the key \"m\" is missing");
  EXPECT_EQ(message([&] { json.at("none"); }), "the key \"none\" is missing");
}

TEST(Json, FindGivesNothingForAbsentAndNullMembers) {
  const Json json = Json::parse(R"({"a": 1, "b": null})", "test");
  EXPECT_NE(json.find("a"), nullptr);
  EXPECT_EQ(json.find("b"), nullptr);
  EXPECT_EQ(json.find("c"), nullptr);
  EXPECT_EQ(Json(3).find("a"), nullptr);
}

TEST(Json, IsBuiltInOrder) {
  Json json = Json::object();
  json.set("z", 1).set("a", Json::array().push_back("x").push_back(true)).set("z", 2.5);
  EXPECT_EQ(json.dump(), R"({"z":2.5,"a":["x",true]})");
  EXPECT_EQ(json.dump(2), "{\n  \"z\": 2.5,\n  \"a\": [\n    \"x\",\n    true\n  ]\n}");
  EXPECT_EQ(Json().set("k", Json()).dump(), R"({"k":null})");
  EXPECT_THROW(Json(1).set("a", 1), UserError);
}

TEST(Json, NumbersSurviveTheWayThroughText) {
  for (double value : {0.1, 1.0, 1e300, -5e-324, 123456789.123456789, 1.0 / 3}) {
    const Json back = Json::parse(Json(value).dump(), "test");
    EXPECT_EQ(back.as_number(), value);
    EXPECT_FALSE(back.is_integer()) << value;
  }
  EXPECT_EQ(Json::parse(Json(std::numeric_limits<int64_t>::min()).dump(), "test").as_integer(),
            std::numeric_limits<int64_t>::min());
  EXPECT_EQ(Json(std::nan("")).dump(), "null");
  EXPECT_EQ(Json(HUGE_VAL).dump(), "null");
}

TEST(Json, TextIsEscapedAndBrokenUtf8Replaced) {
  EXPECT_EQ(Json("a\"\\\n\x01").dump(), R"("a\"\\\n\u0001")");
  EXPECT_EQ(Json("\xc3\xa9").dump(), "\"\xc3\xa9\"");
  EXPECT_EQ(Json("\xff").dump(), "\"\xef\xbf\xbd\"");
}

TEST(Json, OfAKeyThatAppearsTwiceTheLastCounts) {
  const Json json = Json::parse(R"({"z": 1, "a": 2, "z": 3})", "test");
  EXPECT_EQ(json.at("z").as_integer(), 3);
  EXPECT_EQ(Json::parse(R"({"z": 1, "z": null})", "test").find("z"), nullptr);
}

}  // namespace
}  // namespace tessera
