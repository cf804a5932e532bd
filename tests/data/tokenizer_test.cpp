#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>

#include "core/error.h"
#include "core/random.h"
#include "data/made_tokenizers.h"
#include "data/tokenizer/unicode.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace test;

/// The words that a pre-tokenizer cuts a text into, in brackets; "?" for one that is not expected.
std::string cut(const std::string& pre_tokenizer, const std::string& text, const std::vector<std::string>& expected) {
  std::vector<std::string> vocabulary = {"?"};
  for (const std::string& word : expected)
    if (std::find(vocabulary.begin(), vocabulary.end(), word) == vocabulary.end()) vocabulary.push_back(word);
  const Tokenizer tokenizer = load(words(vocabulary, R"({"pre_tokenizer": )" + pre_tokenizer + "}"));
  std::string found;
  for (const int32_t id : tokenizer.encode(text)) found += fmt::format("[{}]", tokenizer.token(id));
  return found;
}

void expect_cut(const std::string& pre_tokenizer, const std::string& text, const std::vector<std::string>& expected) {
  std::string brackets;
  for (const std::string& word : expected) brackets += fmt::format("[{}]", word);
  EXPECT_EQ(cut(pre_tokenizer, text, expected), brackets) << pre_tokenizer;
}

TEST(Tokenizer, ByteLevelMergesInTheOrderOfRanks) {
  const Tokenizer tokenizer = load(byte_level());
  EXPECT_EQ(tokenizer.encode("hello hello"), (Ids{259, 260}));
  EXPECT_EQ(tokenizer.encode("hell  hello"), (Ids{258, ' ', 260}));
  EXPECT_EQ(tokenizer.encode("é"), (Ids{0xC3, 0xA9}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.vocab_size(), 262);
  EXPECT_EQ(tokenizer.token(260), "Ġhello");
  EXPECT_EQ(tokenizer.token(-1), "");
  EXPECT_EQ(tokenizer.token(5000), "");
  EXPECT_EQ(tokenizer.token_id("hello"), 259);
  EXPECT_EQ(tokenizer.token_id("hallo"), std::nullopt);
}

TEST(Tokenizer, IgnoreMergesTakesAWholeWordThatNoMergeReaches) {
  Json json = byte_level();
  Json vocab = json.at("model").at("vocab");
  vocab.set("xyz", 262);
  json = with_model(json, "vocab", vocab);
  EXPECT_EQ(load(json).encode("xyz"), (Ids{'x', 'y', 'z'}));
  EXPECT_EQ(load(with_model(json, "ignore_merges", true)).encode("xyz xyz"), (Ids{262, ' ', 'x', 'y', 'z'}));
}

TEST(Tokenizer, SpecialTextIsATokenOnlyWhereAskedFor) {
  const Tokenizer tokenizer = load(byte_level());
  EXPECT_EQ(tokenizer.encode("hello<|end|>hello", Tokenizer::Special::parse), (Ids{259, 261, 259}));
  EXPECT_EQ(tokenizer.encode("<|end|>"), (Ids{'<', '|', 'e', 'n', 'd', '|', '>'}));
  EXPECT_EQ(tokenizer.decode(Ids{259, 261}), "hello<|end|>");
  EXPECT_EQ(tokenizer.decode(Ids{259, 261}, true), "hello");
}

TEST(Tokenizer, AddedTokensThatAreNotSpecialAreAlwaysFound) {
  Json json = byte_level();
  json.set("added_tokens", parse(R"([{"id": 261, "content": "<think>", "special": false, "normalized": false}])"));
  const Tokenizer tokenizer = load(json);
  EXPECT_EQ(tokenizer.encode("<think>hello"), (Ids{261, 259}));
  EXPECT_EQ(tokenizer.decode(Ids{261, 259}, true), "<think>hello");
}

TEST(Tokenizer, AddedTokensTakeWhiteSpaceAlongAndStandAlone) {
  Json json = byte_level();
  json.set("added_tokens", parse(R"([{"id": 261, "content": "[L]", "lstrip": true},
    {"id": 262, "content": "[R]", "rstrip": true}, {"id": 263, "content": "cat", "single_word": true},
    {"id": 264, "content": "[LL]"}, {"id": 265, "content": "[L][R]"}])"));
  const Tokenizer tokenizer = load(json);
  EXPECT_EQ(tokenizer.encode("a \n[L] b"), (Ids{'a', 261, ' ', 'b'}));
  EXPECT_EQ(tokenizer.encode("a [R]\u00A0 b"), (Ids{'a', ' ', 262, 'b'}));
  EXPECT_EQ(tokenizer.encode("[R] [L]"), (Ids{262, 261}));
  EXPECT_EQ(tokenizer.encode("a cat,concat"), (Ids{'a', ' ', 263, ',', 'c', 'o', 'n', 'c', 'a', 't'}));
  EXPECT_EQ(tokenizer.encode("[L][R][LL]"), (Ids{265, 264}));  // the longest wins
}

TEST(Tokenizer, NormalizedAddedTokensAreFoundInTheNormalizedText) {
  Json json = byte_level();
  json.set("normalizer", parse(R"({"type": "Lowercase"})"));
  json.set("added_tokens", parse(R"([{"id": 261, "content": "Cat", "normalized": true},
                                     {"id": 262, "content": "Dog", "normalized": false}])"));
  EXPECT_EQ(load(json).encode("CATDOGDog"), (Ids{261, 'd', 'o', 'g', 262}));
}

TEST(Tokenizer, SentencePieceStyleFallsBackToBytes) {
  const Tokenizer tokenizer = load(sentence_piece());
  EXPECT_EQ(tokenizer.encode("ab ab"), (Ids{263, 263}));
  EXPECT_EQ(tokenizer.encode(" ab"), (Ids{259, 263}));
  EXPECT_EQ(tokenizer.encode("é"), (Ids{259, 0xC3 + 3, 0xA9 + 3}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(" ab\né a ")), " ab\né a ");
  EXPECT_EQ(tokenizer.decode(Ids{263, 0xC3 + 3, 0x28 + 3, 260}), "ab\uFFFD\uFFFDa");  // no UTF-8: one mark a byte
}

TEST(Tokenizer, UnknownCharactersFuseIntoOneToken) {
  Json vocab = parse(R"({"<unk>": 0, "▁": 1, "a": 2})");
  Json json = with_model(with_model(sentence_piece(), "vocab", vocab), "merges", Json::array());
  json = without(json, "added_tokens");
  json = without(json, "post_processor");
  EXPECT_EQ(load(json).encode("xya z"), (Ids{1, 0, 2, 1, 0}));
  EXPECT_EQ(load(with_model(json, "fuse_unk", false)).encode("xya"), (Ids{1, 0, 0, 2}));
}

TEST(Tokenizer, WordLevelLooksWordsUp) {
  const Tokenizer tokenizer = load(words({"?", "the", "cat"}, R"({"pre_tokenizer": {"type": "WhitespaceSplit"}})"));
  EXPECT_EQ(tokenizer.encode("the  cat the dog"), (Ids{1, 2, 1, 0}));
  EXPECT_EQ(tokenizer.decode(Ids{1, 2}), "the cat");
}

TEST(Tokenizer, PreTokenizersCutAsTheyShould) {
  expect_cut(R"({"type": "Whitespace"})", "Hi, you_2!! é", {"Hi", ",", "you_2", "!!", "é"});
  expect_cut(R"({"type": "WhitespaceSplit"})", " Hi,\u00A0you\n", {"Hi,", "you"});
  expect_cut(R"({"type": "Punctuation"})", "a,$b", {"a", ",", "$", "b"});
  expect_cut(R"({"type": "Digits", "individual_digits": true})", "a12½b", {"a", "1", "2", "½", "b"});
  expect_cut(R"({"type": "Digits", "individual_digits": false})", "a12b3", {"a", "12", "b", "3"});
  expect_cut(R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"})", "a b", {"▁a", "▁b"});
  expect_cut(R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"})", "a  b", {"a", "▁", "▁b"});
  expect_cut(R"({"type": "Metaspace", "prepend_scheme": "first", "split": false})", "a b", {"▁a▁b"});
  expect_cut(R"({"type": "ByteLevel", "add_prefix_space": true})", "it's 12é", {"Ġit", "'s", "Ġ12", "Ã©"});
  expect_cut(R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})", "a b", {"aĠb"});
  expect_cut(R"({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true},
                 {"type": "ByteLevel", "add_prefix_space": false}]})",
             "x 12 y", {"x", "Ġ", "1", "2", "Ġy"});
}

TEST(Tokenizer, SplitKnowsEveryBehavior) {
  const auto split = [](const std::string& behavior, const std::string& invert = "false") {
    return R"({"type": "Split", "pattern": {"String": "-"}, "behavior": ")" + behavior + R"(", "invert": )" + invert +
           "}";
  };
  const std::string text = "the-final--count";
  expect_cut(split("Removed"), text, {"the", "final", "count"});
  expect_cut(split("Isolated"), text, {"the", "-", "final", "-", "-", "count"});
  expect_cut(split("MergedWithPrevious"), text, {"the-", "final-", "-", "count"});
  expect_cut(split("MergedWithNext"), text, {"the", "-final", "-", "-count"});
  expect_cut(split("Contiguous"), text, {"the", "-", "final", "--", "count"});
  expect_cut(split("Removed", "true"), text, {"-", "-", "-"});
  expect_cut(R"j({"type": "Split", "pattern": {"Regex": "(?=[A-Z])"}, "behavior": "Isolated"})j", "aBcDe",
             {"a", "Bc", "De"});
}

TEST(Tokenizer, WhiteSpaceAndWordCharactersAreThoseOfTheFilesAuthors) {
  const auto split = [](const std::string& regex) {
    return R"({"type": "Split", "pattern": {"Regex": ")" + regex + R"("}, "behavior": "Removed", "invert": true})";
  };
  expect_cut(split(R"(\\S+)"), "a\u180Eb\u2003c\u0085d", {"a\u180Eb", "c", "d"});
  expect_cut(split(R"(\\w+)"), "cafe\u0301 ½ a_b", {"cafe\u0301", "½", "a_b"});
  expect_cut(split(R"([\\w]+)"), "cafe\u0301 ½ a_b", {"cafe\u0301", "a_b"});
  expect_cut(R"({"type": "Whitespace"})", "a\u200Db ½", {"a\u200Db", "½"});
  expect_cut(split(R"([^\\s,]+)"), "a,b c", {"a", "b", "c"});
}

TEST(Tokenizer, NormalizersChangeTheText) {
  const auto normalized = [](const std::string& normalizer, const std::string& text) {
    Json json = byte_level();
    json.set("normalizer", parse(normalizer));
    const Tokenizer tokenizer = load(json);
    return tokenizer.decode(tokenizer.encode(text));
  };
  EXPECT_EQ(normalized(R"({"type": "NFC"})", "e\u0301 \uFB01"), "é \uFB01");
  EXPECT_EQ(normalized(R"({"type": "NFD"})", "é"), "e\u0301");
  EXPECT_EQ(normalized(R"({"type": "NFKC"})", "e\u0301 \uFB01"), "é fi");
  EXPECT_EQ(normalized(R"({"type": "NFKD"})", "é\uFB01"), "e\u0301fi");
  EXPECT_EQ(normalized(R"({"type": "Lowercase"})", "ÀΣİb"), "àσi\u0307b");
  EXPECT_EQ(normalized(R"({"type": "Strip", "strip_left": true, "strip_right": true})", "\u2003 a b\n"), "a b");
  EXPECT_EQ(normalized(R"({"type": "Strip", "strip_left": true, "strip_right": false})", " a "), "a ");
  EXPECT_EQ(normalized(R"({"type": "Strip"})", " \n "), "");
  EXPECT_EQ(normalized(R"({"type": "Prepend", "prepend": "_"})", "a"), "_a");
  EXPECT_EQ(normalized(R"({"type": "Prepend", "prepend": "_"})", ""), "");
  EXPECT_EQ(normalized(R"({"type": "Replace", "pattern": {"Regex": "a+"}, "content": "$0"})", "baac"), "b$0c");
}

TEST(Tokenizer, MetaspaceDecodesToSpaces) {
  Json json = words({"▁a", "▁b", "▁"}, R"({"decoder": {"type": "Metaspace", "replacement": "▁"}})");
  EXPECT_EQ(load(json).decode(Ids{0, 1, 2, 0}), "a b  a");
  json.set("decoder", parse(R"({"type": "Metaspace", "prepend_scheme": "never"})"));
  EXPECT_EQ(load(json).decode(Ids{0, 1}), " a b");
}

TEST(Tokenizer, BytesThatAreNoTextBecomeReplacementCharacters) {
  const Tokenizer tokenizer = load(byte_level());
  const std::string mark = "\uFFFD";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a\xFF"
                                              "b")),
            "a" + mark + "b");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("\xE2\x82")), mark);  // a truncated character is one fault
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("\xED\xA0\x80")), mark + mark + mark);  // a surrogate
  EXPECT_EQ(tokenizer.decode(Ids{0xE2, 0x82}), mark);
  EXPECT_EQ(tokenizer.decode(Ids{0xE2, 0x82, 0xAC}), "€");
  EXPECT_EQ(tokenizer.decode(Ids{'a', -1, 100000, 'b'}), "ab");
}

std::string random_utf8(uint64_t seed, int length) {
  std::string text;
  for (int i = 0; i < length; ++i) {
    const uint64_t kind = draw_below(seed, 2 * i, 6);
    constexpr int32_t kBelow[] = {0x80, 0x80, 0x250, 0x3000, 0xD800, 0x110000};
    auto code_point = static_cast<int32_t>(draw_below(seed, 2 * i + 1, kBelow[kind]));
    if (code_point >= 0xD800 && code_point < 0xE000) code_point = ' ';
    tokenizer::append_utf8(text, code_point);
  }
  return text;
}

TEST(Tokenizer, ByteLevelGivesAnyTextBack) {
  std::vector<Tokenizer> tokenizers;
  tokenizers.push_back(load(byte_level()));
  if (!test::shared_data().empty()) {
    for (const char* name : {"gpt2", "llama3"})
      tokenizers.push_back(Tokenizer::load(test::shared_data() / "tokenizers" / name));
  }
  for (const Tokenizer& tokenizer : tokenizers) {
    for (uint64_t seed = 0; seed < 300; ++seed) {
      const std::string text = random_utf8(seed, static_cast<int>(seed) / 3);
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << "seed " << seed;
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, Tokenizer::Special::parse)), text) << "seed " << seed;
    }
  }
}

/// BPE as its definition reads: the lowest rank, leftmost first, until nothing merges.
std::vector<std::string> plain_bpe(std::vector<std::string> symbols,
                                   const std::vector<std::pair<std::string, std::string>>& merges) {
  for (;;) {
    size_t best_rank = merges.size(), best = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = std::find(merges.begin(), merges.end(), std::pair(symbols[i], symbols[i + 1]));
      const auto rank = static_cast<size_t>(found - merges.begin());
      if (rank < best_rank) best_rank = rank, best = i;
    }
    if (best_rank == merges.size()) return symbols;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(Tokenizer, BpeAgreesWithItsDefinitionOnRandomMerges) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    uint64_t counter = 0;
    const auto draw = [&](uint64_t n) { return draw_below(seed, counter++, n); };
    // Merge lists as training makes them: each joins two tokens that are there, and makes a new one.
    std::vector<std::string> tokens = {"a", "b", "c", "d", "é", "▁"};
    std::vector<std::pair<std::string, std::string>> merges;
    for (int i = 0; i < 12; ++i) {
      const std::string left = tokens[draw(tokens.size())], right = tokens[draw(tokens.size())];
      if (std::find(tokens.begin(), tokens.end(), left + right) != tokens.end()) continue;
      merges.emplace_back(left, right);
      tokens.push_back(left + right);
    }
    Json vocab = Json::object(), list = Json::array();
    for (size_t i = 0; i < tokens.size(); ++i) vocab.set(tokens[i], static_cast<int64_t>(i));
    for (const auto& [left, right] : merges) list.push_back(Json(Json::Array{left, right}));
    Json json = parse(R"({"model": {"type": "BPE"}})");
    const Tokenizer tokenizer = load(with_model(with_model(json, "vocab", vocab), "merges", list));
    for (int repeat = 0; repeat < 5; ++repeat) {
      std::vector<std::string> symbols;
      std::string text;
      for (uint64_t i = 0, n = draw(60); i < n; ++i) symbols.push_back(tokens[draw(6)]), text += symbols.back();
      std::vector<std::string> found;
      for (const int32_t id : tokenizer.encode(text)) found.emplace_back(tokenizer.token(id));
      ASSERT_EQ(found, plain_bpe(symbols, merges)) << "seed " << seed << ", \"" << text << '"';
    }
  }
}

TEST(Tokenizer, AMillionCharactersWithoutASpaceTakeNoQuadraticTime) {
  const Tokenizer tokenizer = load(sentence_piece());
  std::string text;
  while (text.size() < 1000000) text += "ab";
  const Ids ids = tokenizer.encode(text);
  EXPECT_EQ(ids.size(), 500000u);
}

TEST(Tokenizer, BosAndEosFollowTheConfiguration) {
  const Json json = sentence_piece();
  EXPECT_EQ(load(json).bos(), std::nullopt);
  EXPECT_FALSE(load(json).add_bos());

  const Tokenizer from_template =
      load(json, R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}})");
  EXPECT_EQ(from_template.bos(), 1);
  EXPECT_EQ(from_template.eos(), 2);
  EXPECT_TRUE(from_template.add_bos());
  EXPECT_FALSE(from_template.add_eos());

  const Tokenizer told =
      load(without(json, "post_processor"),
           R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false, "add_eos_token": true})");
  EXPECT_FALSE(told.add_bos());
  EXPECT_TRUE(told.add_eos());

  const Tokenizer from_map = load(json, "", R"({"bos_token": {"content": "<s>"}})");
  EXPECT_EQ(from_map.bos(), 1);
  EXPECT_TRUE(from_map.add_bos());

  const Json bare = without(json, "post_processor");
  EXPECT_FALSE(load(bare, R"({"bos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"})").add_bos());
  EXPECT_FALSE(load(bare, R"({"bos_token": "<s>", "tokenizer_class": "LlamaTokenizer"})").add_bos());
  EXPECT_TRUE(load(bare, R"({"bos_token": "<s>", "tokenizer_class": "CodeLlamaTokenizer"})").add_bos());
}

TEST(Tokenizer, ATokenWithARoleIsSpecial) {
  const Tokenizer tokenizer = load(words({"?", "<pad>", "a"}), R"({"unk_token": "?", "pad_token": "<pad>"})");
  EXPECT_EQ(tokenizer.encode("<pad>a", Tokenizer::Special::parse), (Ids{1, 2}));
  EXPECT_EQ(tokenizer.decode(Ids{1, 2}, true), "a");
}

TEST(Tokenizer, ChatTemplateIsTextOrTheDefaultOfAList) {
  EXPECT_EQ(load(byte_level()).chat_template(), "");
  EXPECT_EQ(load(byte_level(), R"({"chat_template": "{{ x }}"})").chat_template(), "{{ x }}");
  EXPECT_EQ(load(byte_level(), R"({"chat_template": [{"name": "tool_use", "template": "t"},
                                                     {"name": "default", "template": "d"}]})")
                .chat_template(),
            "d");
}

TEST(Tokenizer, FingerprintChangesWithAnyFile) {
  const uint64_t plain = load(byte_level()).fingerprint();
  EXPECT_EQ(load(byte_level()).fingerprint(), plain);
  EXPECT_NE(load(byte_level(), "{}").fingerprint(), plain);
  EXPECT_NE(load(sentence_piece()).fingerprint(), plain);
}

TEST(Tokenizer, ThreadsMayShareOne) {
  const Tokenizer tokenizer = load(byte_level());
  const std::string text = random_utf8(7, 2000);
  const Ids expected = tokenizer.encode(text);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) wrong += tokenizer.encode(text) != expected || tokenizer.decode(expected) != text;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace tessera
