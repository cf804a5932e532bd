#include "infer/stop_text.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "data/made_tokenizers.h"

namespace tessera {
namespace {

using namespace test;

Request with_stops(std::vector<std::string> stops, Ids prompt = {'?'}) {
  Request request;
  request.prompt = std::move(prompt);
  request.stop = std::move(stops);
  return request;
}

/// Feeds ids until one completes a stop string; the number of those that were fed.
size_t feed(ContinuationText& text, const Ids& ids) {
  for (size_t i = 0; i < ids.size(); ++i)
    if (text.append(ids[i])) return i + 1;
  return ids.size();
}

Ids bytes(const std::string& text) {
  Ids ids;
  for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
  return ids;
}

/// Tokenizers of every way to read ids, each with ids that are characters, pieces of them, special or unknown.
struct Kind {
  std::string name;
  Tokenizer tokenizer;
  Ids ids;
};
std::vector<Kind> kinds() {
  std::vector<Kind> result;
  const Ids utf8 = {0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xFF, 'a', 'b', ' ', '\n'};
  Ids of_bytes = utf8, of_pieces = {1, 2, 259, 260, 261, 262, 263, 999};
  of_bytes.insert(of_bytes.end(), {256, 259, 260, 261, 5000});
  for (const int32_t byte : utf8) of_pieces.push_back(byte + 3);
  result.push_back({"bytes", load(byte_level()), of_bytes});
  result.push_back({"pieces", load(sentence_piece()), of_pieces});
  result.push_back({"words", load(words({"?", "a", "b", "<0x41>"})), {0, 1, 2, 3, 7}});
  result.push_back({"marked words",
                    load(words({"?", "▁a", "▁", "b▁", "▁▁c"}, R"({"decoder": {"type": "Metaspace"}})")),
                    {0, 1, 2, 3, 4, 9}});
  return result;
}

TEST(ContinuationText, IsWhatDecodingAllIdsTogetherTells) {
  std::mt19937 random(7);
  for (const Kind& kind : kinds())
    for (int repeat = 0; repeat < 3000; ++repeat) {
      const auto draw = [&](size_t most) {
        Ids ids(random() % most);
        for (int32_t& id : ids) id = kind.ids[random() % kind.ids.size()];
        return ids;
      };
      Request request = with_stops({}, draw(repeat % 10 == 0 ? 90 : 6));
      request.skip_special_tokens = repeat % 2 == 0;
      const Ids ids = draw(14);
      ContinuationText text(kind.tokenizer, request);
      std::string settled;
      for (size_t n = 0; n < ids.size(); ++n) {
        text.append(ids[n]);
        const std::string whole =
            kind.tokenizer.decode_after(request.prompt, std::span(ids).first(n + 1), request.skip_special_tokens);
        ASSERT_EQ(text.text(), whole) << kind.name << ", repeat " << repeat << ", token " << n;
        // What was told once stays.
        ASSERT_TRUE(whole.starts_with(text.settled()) && text.settled().starts_with(settled));
        settled = text.settled();
      }
    }
}

TEST(ContinuationText, TellsCharactersOnlyWhenTheyAreWhole) {
  const Tokenizer tokenizer = load(byte_level());
  const Request request = with_stops({});
  ContinuationText text(tokenizer, request);
  text.append('x');
  EXPECT_EQ(text.settled(), "x");
  for (const int32_t byte : {0xE2, 0x82}) {
    text.append(byte);
    EXPECT_EQ(text.settled(), "x");
    EXPECT_EQ(text.text(), "x\xEF\xBF\xBD");
  }
  text.append(0xAC);
  EXPECT_EQ(text.settled(), "x€");
}

TEST(ContinuationText, FindsAStopStringWhereverTokensEnd) {
  const Tokenizer tokenizer = load(byte_level());
  const Request request = with_stops({"lo h"});
  // "say" " hello" " hello", with tokens of letters and of words.
  const std::vector<Ids> cuts = {{'s', 'a', 'y', 260, 260, 'x'},
                                 {'s', 'a', 'y', 260, ' ', 'h', 'e', 'l', 'l', 'o', 'x'},
                                 {'s', 'a', 'y', ' ', 'h', 'e', 'l', 'l', 'o', ' ', 256, 257, 'o', 'x'}};
  const std::vector<size_t> ends = {5, 6, 11};
  for (size_t i = 0; i < cuts.size(); ++i) {
    ContinuationText text(tokenizer, request);
    EXPECT_EQ(feed(text, cuts[i]), ends[i]);
    EXPECT_TRUE(text.stopped());
    EXPECT_EQ(text.text(), "say hel");
    EXPECT_EQ(text.settled(), "say hel");
  }
}

TEST(ContinuationText, HoldsBackWhatMayBecomeAStopString) {
  const Tokenizer tokenizer = load(byte_level());
  const Request request = with_stops({"abac", "bb"});
  ContinuationText text(tokenizer, request);
  const std::string input = "xababab";
  // "aba" may become "abac": of "xabab" the first "ab" is safe.
  const std::string settled[] = {"x", "x", "x", "x", "xab", "xab", "xabab"};
  for (size_t i = 0; i < input.size(); ++i) {
    ASSERT_FALSE(text.append(input[i]));
    EXPECT_EQ(text.text(), input.substr(0, i + 1));
    EXPECT_EQ(text.settled(), settled[i]) << i;
  }
}

TEST(ContinuationText, KeepsTheStopStringWhereAsked) {
  const Tokenizer tokenizer = load(byte_level());
  Request request = with_stops({"ell"});
  request.include_stop_str_in_output = true;
  ContinuationText text(tokenizer, request);
  EXPECT_EQ(feed(text, {'a', 260, 'b'}), 2u);
  EXPECT_EQ(text.text(), "a hell");  // without the rest of the token
}

TEST(ContinuationText, TakesTheStopStringThatIsCompleteFirst) {
  const Tokenizer tokenizer = load(byte_level());
  for (const auto& stops : {std::vector<std::string>{"hello", "ell", "l", "el"}, {"el", "l", "ell", "hello"}}) {
    const Request request = with_stops(stops);
    ContinuationText whole(tokenizer, request), letters(tokenizer, request);
    EXPECT_EQ(feed(whole, {'a', 260}), 2u);
    EXPECT_EQ(whole.text(), "a h");  // "el" and "l" end together: the longer one
    EXPECT_EQ(feed(letters, bytes("a hello")), 5u);
    EXPECT_EQ(letters.text(), "a h");
  }
}

TEST(ContinuationText, FindsStopStringsOfCharactersOfSeveralTokens) {
  const Tokenizer tokenizer = load(byte_level());
  const Request request = with_stops({"é€", "\xEF\xBF\xBD"});
  ContinuationText text(tokenizer, request);
  // A character that is not complete yet is not a replacement character.
  EXPECT_EQ(feed(text, bytes("aé€b")), 6u);
  EXPECT_EQ(text.text(), "a");
}

TEST(ContinuationText, FindsStopStringsOfByteTokens) {
  const Tokenizer tokenizer = load(sentence_piece());
  Request request = with_stops({"\n\n"}, {1, 263});
  ContinuationText text(tokenizer, request);
  const int32_t newline = '\n' + 3;
  EXPECT_EQ(feed(text, {263, newline, 260, newline, newline, 261}), 5u);
  EXPECT_EQ(text.text(), " ab\na");
}

TEST(ContinuationText, DoesNotFindAStopStringThatBeginsInThePrompt) {
  const Tokenizer tokenizer = load(byte_level());
  const Request request = with_stops({"ab"}, bytes("xa"));
  ContinuationText text(tokenizer, request);
  EXPECT_EQ(feed(text, bytes("bab")), 3u);
  EXPECT_EQ(text.text(), "b");
}

TEST(ContinuationText, LeavesStopStringsOfTheFirstTokensAlone) {
  const Tokenizer tokenizer = load(byte_level());
  Request request = with_stops({"ab"});
  request.sampling.min_tokens = 3;
  ContinuationText early(tokenizer, request), later(tokenizer, request);
  EXPECT_EQ(feed(early, bytes("abxxab")), 6u);
  EXPECT_EQ(early.text(), "abxx");
  // The fourth token completes one that began before.
  EXPECT_EQ(feed(later, bytes("xxab")), 4u);
  EXPECT_EQ(later.text(), "xx");
}

TEST(ContinuationText, LeavesSpecialTokensOutOfTheTextWhereAsked) {
  const Tokenizer tokenizer = load(byte_level());
  Request request = with_stops({"ab", "<|end|>"});
  ContinuationText skipping(tokenizer, request);
  EXPECT_EQ(feed(skipping, {'x', 261, 'a', 261, 'b', 'c'}), 5u);
  EXPECT_EQ(skipping.text(), "x");
  request.skip_special_tokens = false;
  ContinuationText telling(tokenizer, request);
  EXPECT_EQ(feed(telling, {'x', 261, 'a'}), 2u);
  EXPECT_EQ(telling.text(), "x");
}

TEST(ContinuationText, CopiesGoTheirOwnWays) {
  const Tokenizer tokenizer = load(byte_level());
  const Request request = with_stops({"abc"});
  ContinuationText text(tokenizer, request);
  feed(text, bytes("xab"));
  ContinuationText copy = text;
  EXPECT_TRUE(copy.append('c'));
  EXPECT_FALSE(text.append('d'));
  EXPECT_EQ(copy.text(), "x");
  EXPECT_EQ(text.text(), "xabd");
}

TEST(ContinuationText, WithoutATokenizerIsEmpty) {
  ContinuationText text;
  EXPECT_FALSE(text.append(5));
  EXPECT_EQ(text.text(), "");
  EXPECT_EQ(text.settled(), "");
}

}  // namespace
}  // namespace tessera
