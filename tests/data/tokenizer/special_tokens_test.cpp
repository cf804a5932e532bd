// Special tokens: what text may become, and what is put around it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json.h"
#include "data/tokenizer.h"
#include "support/paths.h"

namespace tessera {
namespace {

using Ids = std::vector<int32_t>;
using Special = Tokenizer::Special;
using testing::HasSubstr;

Tokenizer load(const std::string& tokenizer, const std::string& config = "", const std::string& special_map = "") {
  const test::TemporaryFolder folder;
  test::write_file(folder / "tokenizer.json", tokenizer);
  if (!config.empty()) test::write_file(folder / "tokenizer_config.json", config);
  if (!special_map.empty()) test::write_file(folder / "special_tokens_map.json", special_map);
  return Tokenizer::load(folder.path());
}

std::string fault(const std::string& tokenizer, const std::string& config = "") {
  try {
    load(tokenizer, config);
  } catch (const UserError& error) {
    return error.message();
  }
  return "no fault";
}

Ids front(const Tokenizer& tokenizer) { return {tokenizer.front().begin(), tokenizer.front().end()}; }
Ids back(const Tokenizer& tokenizer) { return {tokenizer.back().begin(), tokenizer.back().end()}; }

constexpr const char* kSpecial = R"({"id": 1, "content": "<s>", "special": true, "normalized": false},
                                    {"id": 2, "content": "</s>", "special": true, "normalized": false})";

/// "<unk>" 0, "<s>" 1, "</s>" 2, "a" 3; white space parts words.
std::string words(const std::string& post_processor = "null", const std::string& added = kSpecial) {
  return R"({"added_tokens": [)" + added + R"(], "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": )" +
         post_processor + R"(, "model": {"type": "WordLevel", "unk_token": "<unk>",
         "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3}}})";
}

/// Characters "<" 3, "s" 4, ">" 5, "/" 6, "<s" 7, "a" 8, "§" 9; merges that end in "<s>".
std::string characters(const std::string& flags, const std::string& vocab = "") {
  return R"({"added_tokens": [)" + std::string(kSpecial) +
         R"(, {"id": 9, "content": "§", "special": true, "normalized": false}], "model": {"type": "BPE", )" + flags +
         R"("vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<": 3, "s": 4, ">": 5, "/": 6, "<s": 7, "a": 8, "§": 9)" +
         vocab + R"(}, "merges": ["< s", "<s >"]}})";
}

std::string bytes(int first_id) {
  std::string vocab;
  for (int byte = 0; byte < 256; ++byte) vocab += fmt::format(R"(, "<0x{:02X}>": {})", byte, first_id + byte);
  return vocab;
}

std::string around(const std::vector<std::string>& before, const std::vector<std::string>& after) {
  const auto item = [](const std::string& name) {
    return R"({"SpecialToken": {"id": ")" + name + R"(", "type_id": 0}})";
  };
  std::string single;
  for (const std::string& name : before) single += item(name) + ", ";
  single += R"({"Sequence": {"id": "A", "type_id": 0}})";
  for (const std::string& name : after) single += ", " + item(name);
  return R"({"type": "TemplateProcessing", "single": [)" + single + R"(], "pair": [], "special_tokens": {
    "<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]},
    "twice": {"id": "twice", "ids": [2, 3], "tokens": ["</s>", "a"]}}})";
}

TEST(PlainText, OfWordsNeverBecomesASpecialToken) {
  const Tokenizer tokenizer = load(words());
  EXPECT_EQ(tokenizer.encode("a <s> a </s>"), (Ids{3, 0, 3, 0}));
  EXPECT_EQ(tokenizer.encode("a <s> a </s>", Special::parse), (Ids{3, 1, 3, 2}));
}

TEST(PlainText, OfMergedCharactersNeverBecomesASpecialToken) {
  const Tokenizer tokenizer = load(characters(""));
  EXPECT_EQ(tokenizer.encode("a<s>"), (Ids{8, 7, 5}));
  EXPECT_EQ(tokenizer.encode("a<s>", Special::parse), (Ids{8, 1}));
}

TEST(PlainText, OfAWholeWordNeverBecomesASpecialTokenWhenMergesAreIgnored) {
  const Tokenizer tokenizer = load(characters(R"("ignore_merges": true, )"));
  EXPECT_EQ(tokenizer.encode("</s>"), (Ids{3, 6, 4, 5}));
  EXPECT_EQ(tokenizer.encode("<s>"), (Ids{7, 5}));
  EXPECT_EQ(tokenizer.encode("</s>", Special::parse), Ids{2});
}

TEST(PlainText, OfACharacterFallsBackToItsBytesOrIsUnknown) {
  const Tokenizer with_bytes = load(characters(R"("byte_fallback": true, )", bytes(100)));
  EXPECT_EQ(with_bytes.encode("a§"), (Ids{8, 100 + 0xC2, 100 + 0xA7}));
  EXPECT_EQ(with_bytes.encode("a§", Special::parse), (Ids{8, 9}));
  EXPECT_EQ(load(characters(R"("unk_token": "<unk>", )")).encode("a§"), (Ids{8, 0}));
  EXPECT_EQ(load(characters("")).encode("a§"), (Ids{8, 9}));  // nothing else spells it, and text is not lost
}

TEST(PlainText, ATokenBecomesSpecialByItsRole) {
  const std::string added = R"({"id": 3, "content": "a", "special": false, "normalized": false})";
  EXPECT_EQ(load(words("null", added)).encode("a"), Ids{3});
  for (const char* config :
       {R"({"eos_token": "a"})", R"({"sep_token": "a"})", R"({"image_token": {"content": "a"}})",
        R"({"additional_special_tokens": ["a"]})", R"({"extra_special_tokens": {"turn": "a"}})",
        R"({"added_tokens_decoder": {"3": {"content": "a", "special": true, "normalized": false}}})"})
    EXPECT_EQ(load(words("null", added), config).encode("a"), Ids{0}) << config;
}

TEST(SpecialTokens, FlagsOfTheConfigurationWin) {
  const std::string config = R"({"added_tokens_decoder": {"1": {"content": "<s>", "special": true, "lstrip": true,
    "rstrip": true, "normalized": false}}})";
  const std::string letters =
      R"({"added_tokens": [)" + std::string(kSpecial) +
      R"(], "model": {"type": "BPE", "merges": [], "vocab": {"a": 0, "<s>": 1, "</s>": 2, " ": 3}}})";
  EXPECT_EQ(load(letters).encode("a <s> a", Special::parse), (Ids{0, 3, 1, 3, 0}));
  EXPECT_EQ(load(letters, config).encode("a <s> a", Special::parse), (Ids{0, 1, 0}));
}

TEST(SpecialTokens, TheMapComesBeforeAConfigurationThatListsNoTokens) {
  const char* map = R"({"eos_token": "a"})";
  EXPECT_EQ(load(words(), R"({"eos_token": "</s>"})", map).eos(), 3);
  EXPECT_EQ(load(words(), R"({"eos_token": "</s>", "added_tokens_decoder": {}})", map).eos(), 2);
}

TEST(SpecialTokens, AClassMeansItsOwnTokensWhereNoFileNamesThem) {
  EXPECT_EQ(load(words(), R"({"tokenizer_class": "LlamaTokenizerFast"})").bos(), 1);
  EXPECT_EQ(load(words(), R"({"tokenizer_class": "LlamaTokenizer"})").eos(), 2);
  EXPECT_EQ(load(words(), R"({"tokenizer_class": "LlamaTokenizer", "bos_token": null})").bos(), std::nullopt);
  EXPECT_EQ(load(words(), R"({"tokenizer_class": "GPT2Tokenizer"})").eos(), std::nullopt);  // not in the vocabulary
  EXPECT_EQ(load(words(), R"({"tokenizer_class": "PreTrainedTokenizerFast"})").eos(), std::nullopt);
}

TEST(Surroundings, ATemplateIsAppliedAsItStands) {
  const char* config = R"({"bos_token": "<s>", "eos_token": "</s>"})";
  const Tokenizer both = load(words(around({"<s>"}, {"</s>"})), config);
  EXPECT_EQ(front(both), Ids{1});
  EXPECT_EQ(back(both), Ids{2});
  EXPECT_TRUE(both.add_bos() && both.add_eos());

  const Tokenizer swapped = load(words(around({"</s>", "<s>"}, {"twice"})), config);
  EXPECT_EQ(front(swapped), (Ids{2, 1}));
  EXPECT_EQ(back(swapped), (Ids{2, 3}));

  const Tokenizer nameless = load(words(around({"<s>"}, {})));
  EXPECT_EQ(front(nameless), Ids{1});
  EXPECT_FALSE(nameless.add_bos());  // it is not called BOS
}

TEST(Surroundings, ProcessorsOfASequenceWrapOneAnother) {
  const std::string sequence = R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, )" +
                               around({"<s>"}, {"</s>"}) + ", " + around({"</s>"}, {}) + "]}";
  const Tokenizer tokenizer = load(words(sequence));
  EXPECT_EQ(front(tokenizer), (Ids{2, 1}));
  EXPECT_EQ(back(tokenizer), Ids{2});
}

TEST(Surroundings, OtherTemplatesAreRefused) {
  const auto with_single = [](const std::string& single) {
    return fault(
        words(R"({"type": "TemplateProcessing", "pair": [], "special_tokens": {}, "single": [)" + single + "]}"));
  };
  EXPECT_THAT(with_single(""), HasSubstr("has the text not just once"));
  EXPECT_THAT(with_single(R"({"Sequence": {"id": "A"}}, {"Sequence": {"id": "A"}})"), HasSubstr("not just once"));
  EXPECT_THAT(with_single(R"({"Sequence": {"id": "B"}})"), HasSubstr("another text than \"A\""));
  EXPECT_EQ(with_single(R"({"SpecialToken": {"id": "[CLS]"}}, {"Sequence": {"id": "A"}})"),
            "the template names the token \"[CLS]\", which is not in the vocabulary");
}

TEST(Surroundings, ThePostProcessorDecidesAndKeysThatContradictItAreNamed) {
  const char* told = R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false, "add_eos_token": true})";
  const Tokenizer tokenizer = load(words(around({"<s>"}, {})), told);
  EXPECT_EQ(front(tokenizer), Ids{1});
  EXPECT_EQ(back(tokenizer), Ids{});
  EXPECT_THAT(tokenizer.notice(), HasSubstr("\"<s> text\""));
  EXPECT_EQ(load(words(around({"<s>"}, {})), R"({"bos_token": "<s>", "add_bos_token": true})").notice(), "");
}

TEST(Surroundings, KeysDecideWhereThereIsNoPostProcessor) {
  const char* told = R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "add_eos_token": true})";
  EXPECT_EQ(front(load(words(), told)), Ids{1});
  EXPECT_EQ(back(load(words(), told)), Ids{2});
  EXPECT_EQ(load(words(), told).notice(), "");
  EXPECT_EQ(front(load(words(), R"({"bos_token": "<s>"})")), Ids{});
}

TEST(Surroundings, WhereTransformers4And5DifferItIsSaid) {
  const Tokenizer llama = load(words(), R"({"tokenizer_class": "LlamaTokenizer"})");
  EXPECT_EQ(front(llama), Ids{});
  EXPECT_EQ(
      llama.notice(),
      "note: a text is read as \"text\" with this tokenizer, as transformers 5 does; transformers 4 reads \"<s> text\" "
      "(tokenizer_class \"LlamaTokenizer\", no post_processor in tokenizer.json)");
  const Tokenizer agreed = load(words(around({"<s>"}, {})), R"({"tokenizer_class": "LlamaTokenizer"})");
  EXPECT_EQ(front(agreed), Ids{1});
  EXPECT_EQ(agreed.notice(), "");
}

TEST(Surroundings, APrefixSpaceThatTheFileContradictsIsNamed) {
  const std::string json =
      R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "model": {"type": "BPE",
    "merges": [], "vocab": {"a": 0, "Ġ": 1}}})";
  const Tokenizer tokenizer = load(json, R"({"add_prefix_space": true})");
  EXPECT_EQ(tokenizer.encode("a"), Ids{0});
  EXPECT_EQ(tokenizer.notice(),
            "note: add_prefix_space is true in tokenizer_config.json and false in the pre_tokenizer of tokenizer.json, "
            "which is followed");
  EXPECT_EQ(load(json, R"({"add_prefix_space": false})").notice(), "");
}

TEST(DecodeAfter, KeepsTheSpaceThatPartsPromptAndContinuation) {
  const Tokenizer tokenizer = load(words());
  EXPECT_EQ(tokenizer.decode(Ids{3, 3}), "a a");
  EXPECT_EQ(tokenizer.decode_after(Ids{3}, Ids{3, 3}), " a a");
  EXPECT_EQ(tokenizer.decode_after(Ids{1, 3}, Ids{2, 3}, true), " a");
  EXPECT_EQ(tokenizer.decode_after(Ids{3}, Ids{}), "");
  EXPECT_EQ(tokenizer.decode_after(Ids{}, Ids{3}), "a");
}

TEST(DecodeAfter, TakesTheTokensAloneWhereThePromptsEndReadsOtherwise) {
  const std::string json = characters(R"("byte_fallback": true, )", bytes(100));
  const Tokenizer tokenizer =
      load(json.substr(0, json.size() - 1) +
           R"(, "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}})");
  const Ids e_acute = {100 + 0xC3, 100 + 0xA9};
  EXPECT_EQ(tokenizer.decode_after(e_acute, Ids{8}), "a");
  EXPECT_EQ(tokenizer.decode_after(e_acute, Ids{100 + 0xFF}), "\uFFFD");
}

}  // namespace
}  // namespace tessera
