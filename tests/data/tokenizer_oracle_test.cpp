// What the `tokenizers` and `transformers` libraries make of tokenizers,
// as scripts/make_tokenizer_golden wrote it down.

#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "core/error.h"
#include "core/json.h"
#include "core/random.h"
#include "data/tokenizer.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/regex.h"
#include "data/tokenizer/unicode.h"
#include "support/golden.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AnyOf;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

Ids ids_of(const Json& array) {
  Ids ids;
  for (const Json& id : array.items()) ids.push_back(static_cast<int32_t>(id.as_integer()));
  return ids;
}

std::string text_or(const Json& json, const char* key) {
  const Json* text = json.find(key);
  return text ? text->as_string() : "";
}

Tokenizer load(const Json& files) {
  const test::TemporaryFolder folder;
  for (const auto& [name, content] : files.members()) test::write_file(folder / name, content.dump());
  return Tokenizer::load(folder.path());
}

/// A text's tokens with what the tokenizer puts around them.
Ids whole(const Tokenizer& tokenizer, const std::string& text) {
  Ids ids(tokenizer.front().begin(), tokenizer.front().end());
  const Ids inner = tokenizer.encode(text, Tokenizer::Special::parse);
  ids.insert(ids.end(), inner.begin(), inner.end());
  ids.insert(ids.end(), tokenizer.back().begin(), tokenizer.back().end());
  return ids;
}

std::vector<Json> lines_of(const fs::path& file) {
  std::vector<Json> lines;
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) lines.push_back(Json::parse(line, file.string()));
  return lines;
}

/// What a case's member says, or nothing where it has none or the library refused.
void expect_text(const Json& expected, const char* member, const std::string& found) {
  const Json* text = expected.find(member);
  if (text) {
    EXPECT_EQ(found, text->as_string()) << member;
  }
}

void expect_case(const Tokenizer& tokenizer, const Json& expected) {
  const std::string& text = expected.at("text").as_string();
  if (!expected.find("parse")) return;  // the library refuses it
  const Ids ids = ids_of(expected.at("parse"));
  try {
    EXPECT_EQ(whole(tokenizer, text), ids) << "parse";
    if (const Json* plain = expected.find("plain")) {
      EXPECT_EQ(tokenizer.encode(text), ids_of(*plain)) << "plain";
    }
    expect_text(expected, "decoded", tokenizer.decode(ids));
    expect_text(expected, "bare", tokenizer.decode(ids, true));
  } catch (const UserError& error) {
    ADD_FAILURE() << error.what();
  }
}

/// Set TESSERA_TOKENIZER_CASES to a file of scripts/lib/random_tokenizers.py to compare with that.
TEST(TokenizerOracle, RandomTokenizersGiveTheLibrarysIds) {
  const char* other = std::getenv("TESSERA_TOKENIZER_CASES");
  const auto lines = lines_of(other ? fs::path(other) : test::golden("tokenizers/random.jsonl"));
  ASSERT_GE(lines.size(), 50u);
  size_t refused = 0;
  for (const Json& line : lines) {
    SCOPED_TRACE(fmt::format("seed {}", line.at("seed").as_integer()));
    try {
      const Tokenizer tokenizer = load(Json::object().set("tokenizer.json", line.at("tokenizer")));
      for (const Json& expected : line.at("cases").items()) {
        SCOPED_TRACE(expected.dump());
        expect_case(tokenizer, expected);
      }
    } catch (const UserError& error) {
      EXPECT_THAT(error.message(),
                  AnyOf(HasSubstr("is not supported"), HasSubstr("the normalizer leaves nothing of the token")));
      ++refused;
    }
  }
  EXPECT_LE(refused, lines.size() / 10);
}

/// What deserves a notice: the versions differ, or the keys say otherwise than what is done.
bool is_contested(const Json& folder, const Tokenizer& tokenizer) {
  const Json* by_4 = folder.find("by_4");
  if (by_4 && ids_of(by_4->at("ids")) != ids_of(folder.at("by_5").at("ids"))) return true;
  const Json& config = folder.at("files").at("tokenizer_config.json");
  const Json *bos = config.find("add_bos_token"), *eos = config.find("add_eos_token");
  return (bos && tokenizer.bos() && bos->as_bool() != tokenizer.add_bos()) ||
         (eos && tokenizer.eos() && eos->as_bool() != tokenizer.add_eos());
}

TEST(TokenizerOracle, FoldersOfTransformersGiveWhatItsNewestVersionGives) {
  const auto folders = lines_of(test::golden("tokenizers/folders.jsonl"));
  ASSERT_GE(folders.size(), 80u);
  for (const Json& folder : folders) {
    SCOPED_TRACE(folder.at("name").as_string());
    const Tokenizer tokenizer = load(folder.at("files"));
    const Json& by_5 = folder.at("by_5");
    EXPECT_EQ(whole(tokenizer, folder.at("text").as_string()), ids_of(by_5.at("ids")));
    EXPECT_EQ(tokenizer.bos() ? std::string(tokenizer.token(*tokenizer.bos())) : "", text_or(by_5, "bos"));
    EXPECT_EQ(tokenizer.eos() ? std::string(tokenizer.token(*tokenizer.eos())) : "", text_or(by_5, "eos"));
    EXPECT_EQ(!tokenizer.notice().empty(), is_contested(folder, tokenizer)) << tokenizer.notice();
  }
}

/// The words that a pre-tokenizer cuts a text into; its own message where it refuses.
std::vector<std::string> cut(const Json& pre_tokenizer, const std::string& text) {
  try {
    tokenizer::Words words{text, {{0, text.size()}}, true};
    tokenizer::make_pre_tokenizer(pre_tokenizer)->apply(words);
    std::vector<std::string> found;
    for (const tokenizer::Range& range : words.ranges) found.emplace_back(words.word(range));
    return found;
  } catch (const UserError& error) {
    return {"refused"};
  }
}

Json split_at(const std::string& pattern) {
  return Json::object()
      .set("type", "Split")
      .set("pattern", Json::object().set("Regex", pattern))
      .set("behavior", "Isolated");
}

TEST(TokenizerOracle, PatternsMatchWhatTheLibraryMatchesOrAreRefused) {
  const auto lines = lines_of(test::golden("tokenizers/patterns.jsonl"));
  ASSERT_GE(lines.size(), 150u);
  const Json::Array& texts = lines[0].at("texts").items();
  int refused = 0;
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::string& pattern = lines[i].at("pattern").as_string();
    SCOPED_TRACE(pattern);
    const Json* matches = lines[i].find("matches");
    if (!matches) continue;
    for (size_t t = 0; t < texts.size(); ++t) {
      const std::vector<std::string> found = cut(split_at(pattern), texts[t].as_string());
      if (found == std::vector<std::string>{"refused"}) {
        ++refused;
        break;
      }
      std::vector<std::string> expected;
      for (const Json& piece : matches->items()[t].items()) expected.push_back(piece.as_string());
      EXPECT_EQ(found, expected);
    }
  }
  EXPECT_LE(refused, 50);  // of what no known tokenizer has: \X, \Q, (?~, [:upper:], sets of sets, ...
}

bool matches(const tokenizer::Regex& regex, int32_t code_point) {
  std::string character;
  tokenizer::append_utf8(character, code_point);
  std::vector<tokenizer::Range> found;
  regex.find_all(character, found);
  return !found.empty();
}

/// The library's tables are of Unicode 16, those here of the PCRE2 and utf8proc that are installed: a character that is
/// not assigned here is not compared.
bool is_known_character(int32_t code_point) {
  static const tokenizer::Regex kUnassigned(R"(\p{Cn})");
  return tokenizer::is_assigned(code_point) && !matches(kUnassigned, code_point);
}

TEST(TokenizerOracle, CharactersAreOfTheLibrarysKinds) {
  const Json kinds = Json::parse(test::read_file(test::golden("tokenizers/characters.json")), "characters.json");
  const auto belongs = [](const std::string& kind, int32_t code_point) {
    std::string text = "a";
    tokenizer::append_utf8(text, code_point);
    text += "a";
    const auto pieces = [&](const char* type) {
      return cut(Json::object().set("type", type).set("individual_digits", true), text).size();
    };
    if (kind == "single_word") return tokenizer::is_word_character(code_point);
    if (kind == "lstrip") return tokenizer::is_white_space(code_point);
    if (kind == "Whitespace") return pieces("Whitespace") == 1;
    if (kind == "WhitespaceSplit") return pieces("WhitespaceSplit") == 2;
    if (kind == "Punctuation" || kind == "Digits") return pieces(kind.c_str()) == 3;
    return matches(tokenizer::Regex(kind), code_point);
  };
  for (const auto& [kind, ranges] : kinds.members()) {
    SCOPED_TRACE(kind);
    // Every border of a range, from both sides, and characters drawn at random.
    std::vector<int32_t> tried;
    for (const Json& range : ranges.items())
      for (const size_t end : {0, 1})
        for (const int32_t step : {-1, 0, 1})
          tried.push_back(static_cast<int32_t>(range.items()[end].as_integer()) + step);
    for (uint64_t i = 0; i < 500; ++i) tried.push_back(static_cast<int32_t>(draw_below(1, i, 0x3000)));
    int wrong = 0;
    for (const int32_t code_point : tried) {
      const bool is_one = code_point >= 0 && code_point < 0x110000 && (code_point < 0xD800 || code_point > 0xDFFF);
      if (!is_one || !is_known_character(code_point)) continue;
      const bool expected = std::any_of(ranges.items().begin(), ranges.items().end(), [&](const Json& range) {
        return range.items()[0].as_integer() <= code_point && code_point <= range.items()[1].as_integer();
      });
      if (belongs(kind, code_point) != expected && ++wrong <= 5)
        ADD_FAILURE() << fmt::format("U+{:04X} is {}in the library's", code_point, expected ? "" : "not ");
    }
    EXPECT_EQ(wrong, 0);
  }
}

}  // namespace
}  // namespace tessera
