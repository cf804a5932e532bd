// What documents become: tokens, which of them are scored, and which part a document falls into.

#include <gmock/gmock.h>

#include <set>

#include "data/token_files.h"
#include "io/hdf5_file.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;

TEST_F(TokenFile, ScoresCompletionsAndWholeTextsButNeverTheFirstToken) {
  const DataConfig config = source(R"({"text": "a b"}
{"prompt": "a =", "completion": "b c"}
)");
  const TokenData data = load_split(config, words_, Split::train);
  EXPECT_THAT(data.tokens, ElementsAre(1, 3, 4, 2, /**/ 1, 3, 6, 4, 5, 2));
  EXPECT_THAT(data.scored, ElementsAre(0, 1, 1, 1, /**/ 0, 0, 0, 1, 1, 1));
  EXPECT_THAT(data.ends, ElementsAre(4, 10));
}

TEST_F(TokenFile, AddsBosAndEosOnlyAsTheTokenizersConfigSays) {
  const Tokenizer bare = tokenizer_of(folder_ / "bare", kWords, kNeither);
  const TokenData data = load_split(source(R"({"text": "a b c"})"), bare, Split::train);
  EXPECT_THAT(data.tokens, ElementsAre(3, 4, 5));
  EXPECT_THAT(data.scored, ElementsAre(0, 1, 1));
}

TEST_F(TokenFile, TellsAPromptOfOneTokenFromATextsFirstToken) {
  const Tokenizer bare = tokenizer_of(folder_ / "bare", kWords, kNeither);
  const DataConfig config = source(R"({"text": "a b c"}
{"prompt": "a", "completion": "b c"}
{"prompt": "", "completion": "a b c"}
)");
  for (int time = 0; time < 2; ++time) {  // as it is made, and as it is read again
    const TokenData data = load_split(config, bare, Split::train);
    EXPECT_THAT(data.scored, ElementsAre(0, 1, 1, /**/ 0, 1, 1, /**/ 0, 1, 1));
    EXPECT_THAT(data.has_prompt, ElementsAre(0, 1, 0));
  }
  EXPECT_THAT(load_split(config, words_, Split::train).has_prompt, ElementsAre()) << "with BOS the marks tell";
}

TEST_F(TokenFile, SkipsAndCountsDocumentsWithNothingToScore) {
  const Tokenizer bare = tokenizer_of(folder_ / "bare", kWords, kNeither);
  std::string notice;
  const TokenData data = load_split(
      source("{\"text\": \"a\"}\n{\"text\": \"\"}\n{\"prompt\": \"a b\", \"completion\": \"\"}\n{\"text\": \"a b\"}\n"),
      bare, Split::train, &notice);
  EXPECT_THAT(data.ends, ElementsAre(2));
  EXPECT_THAT(notice, testing::HasSubstr("1 documents, 2 tokens"));
  EXPECT_THAT(notice, testing::EndsWith("; skipped 3 with nothing to score"));
}

TEST_F(TokenFile, ACompletionGetsNoSpaceThatOnlyBeginningsHave) {
  const Tokenizer pieces = tokenizer_of(folder_ / "pieces", kPieces, kNeither);
  const DataConfig config;
  // Alone, "ba" is "▁b a"; behind a prompt it is "b a", and " ba" is "▁b a".
  EXPECT_THAT(encode_example(pieces, config, {"a", "ba"}).tokens, ElementsAre(4, 5, 6, 5));
  EXPECT_THAT(encode_example(pieces, config, {"a", " ba"}).tokens, ElementsAre(4, 5, 7, 5));
  EXPECT_THAT(encode_example(pieces, config, {"", "ba"}).tokens, ElementsAre(7, 5));
  EXPECT_EQ(pieces.decode(encode_example(pieces, config, {"a b", "ba b"}).tokens), "a bba b");
}

TEST_F(TokenFile, GenerationStartsFromTheVeryTokensThatTrainingRead) {
  const Tokenizer pieces = tokenizer_of(folder_ / "pieces", kPieces, kBoth);
  // "a" and "b" would merge across the border: the prompt stays what it is alone.
  const EncodedExample example = encode_example(pieces, {}, {"a", "b"});
  EXPECT_THAT(example.tokens, ElementsAre(1, 4, 5, 6, 2));
  EXPECT_EQ(example.prompt_tokens, 3);
  EXPECT_THAT(encode_prompt(pieces, {}, "a"), ElementsAre(1, 4, 5));
}

TEST_F(TokenFile, SpecialTokensAreTextUnlessATemplateIsUsed) {
  DataConfig config = source(R"({"text": "a a</s>b"})");
  EXPECT_THAT(load_split(config, words_, Split::train).tokens, ElementsAre(1, 3, 0, 2));
  config.completion_template = "{text}";
  EXPECT_THAT(load_split(config, words_, Split::train).tokens, ElementsAre(1, 3, 3, 2, 4, 2));
}

TEST_F(TokenFile, ATokenThatATemplateWritesIsNotAddedAgain) {
  DataConfig config;
  config.prompt_template = "<s> {x}";
  config.completion_template = " {y} </s>";
  // <s> a b </s>, whether the template or the tokenizer writes them.
  EXPECT_THAT(encode_example(words_, config, {"<s> a", " b </s>"}).tokens, ElementsAre(1, 3, 4, 2));
  EXPECT_THAT(encode_example(words_, config, {"a", " b"}).tokens, ElementsAre(1, 3, 4, 2));
  EXPECT_EQ(encode_example(words_, config, {"<s> a", " b </s>"}).prompt_tokens, 2);
  EXPECT_THAT(encode_prompt(words_, config, "<s> a"), ElementsAre(1, 3));
  EXPECT_THAT(
      reading_notices(words_, config),
      ElementsAre("note: data.prompt_template writes <s>, which the tokenizer adds by itself: it is there once",
                  "note: data.completion_template writes </s>, which the tokenizer adds by itself: it is there once"));
  config.prompt_template = "";
  config.completion_template = "<s> {text} </s>";
  EXPECT_THAT(encode_example(words_, config, {"", "<s> a </s>"}).tokens, ElementsAre(1, 3, 2));
  EXPECT_EQ(reading_notices(words_, config).size(), 2u);
  config.completion_template = "{text}";
  EXPECT_THAT(reading_notices(words_, config), ElementsAre());
}

TEST_F(TokenFile, TheOrderOfDocumentsDoesNotDependOnTheBatchesTheyAreEncodedIn) {
  const std::string filler(20000, ' ');  // about 4 MiB of text make a batch
  std::string content;
  for (int i = 0; i < 600; ++i)
    content += "{\"text\": \"" + std::string(i % 2 ? "a" : "b") + filler + std::string(i % 3 ? "c" : "=") + "\"}\n";
  const TokenData data = load_split(source(content), words_, Split::train);
  ASSERT_EQ(data.documents(), 600);
  for (int i = 0; i < 600; ++i) {
    EXPECT_EQ(data.tokens[4 * i + 1], i % 2 ? 3 : 4);
    EXPECT_EQ(data.tokens[4 * i + 2], i % 3 ? 5 : 6);
  }
}

/// Records of 2000 different documents, each twice, with ids that differ.
std::string doubled_records() {
  std::string content;
  for (int i = 0; i < 4000; ++i)
    content += "{\"id\": " + std::to_string(i) + ", \"text\": \"a b " + std::to_string(i % 2000) + "\"}\n";
  return content;
}

TEST_F(TokenFile, TheHeldOutPartIsDrawnByContentSoThatCopiesNeverPart) {
  DataConfig config = source(doubled_records());
  config.eval_fraction = 0.1;
  const auto train = load_examples(config, Split::train, 0), eval = load_examples(config, Split::eval, 0);
  EXPECT_EQ(train.size() + eval.size(), 4000u);
  EXPECT_NEAR(static_cast<double>(eval.size()), 400, 120);  // 2000 pairs: 4 standard deviations are 107
  std::set<std::string> train_texts, eval_texts;
  for (const TextExample& example : train) train_texts.insert(example.completion);
  for (const TextExample& example : eval) eval_texts.insert(example.completion);
  EXPECT_EQ(train_texts.size() + eval_texts.size(), 2000u);
  EXPECT_EQ(load_split(config, words_, Split::train).documents(), static_cast<int64_t>(train.size()));
  EXPECT_EQ(load_split(config, words_, Split::eval).documents(), static_cast<int64_t>(eval.size()));
}

TEST_F(TokenFile, ALargerHeldOutPartContainsTheSmallerOne) {
  for (int i = 0; i < 1000; ++i) {
    const TextExample example{"p", std::to_string(i)};
    EXPECT_FALSE(is_held_out(example, 0));
    if (is_held_out(example, 0.1)) {
      EXPECT_TRUE(is_held_out(example, 0.3));
    }
  }
}

TEST_F(TokenFile, WhatIsPromptAndWhatIsCompletionBelongsToTheContent) {
  int differ = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string number = std::to_string(i);
    differ += is_held_out({"a" + number, "b"}, 0.5) != is_held_out({"a", number + "b"}, 0.5);
  }
  EXPECT_GT(differ, 400);
}

TEST_F(TokenFile, AnEvaluationFileOfItsOwnLeavesTheTrainingFileWhole) {
  DataConfig config = source(doubled_records());
  config.eval_fraction = 0.1;
  write_file(folder_ / "eval.jsonl", R"({"prompt": "a =", "completion": "b"})");
  config.eval = folder_ / "eval.jsonl";
  EXPECT_EQ(load_split(config, words_, Split::train).documents(), 4000);
  EXPECT_THAT(load_split(config, words_, Split::eval).tokens, ElementsAre(1, 3, 6, 4, 2));
}

TEST_F(TokenFile, ExamplesComeInTheFilesOrderUpToTheLimit) {
  const DataConfig config = source("{\"text\": \"a\"}\n{\"prompt\": \"b\", \"completion\": \"c\"}\nnot read");
  const auto examples = load_examples(config, Split::train, 2);
  ASSERT_EQ(examples.size(), 2u);
  EXPECT_EQ(examples[0].prompt, "");
  EXPECT_EQ(examples[0].completion, "a");
  EXPECT_EQ(examples[1].prompt, "b");
  EXPECT_EQ(examples[1].completion, "c");
}

TEST_F(TokenFile, SaysWhatIsMissing) {
  DataConfig config;
  EXPECT_EQ(fault(config), "data.train: no file is named\n  name a .jsonl file or a text file");
  config.train = "nowhere.jsonl";
  EXPECT_THAT(fault(config), testing::StartsWith("nowhere.jsonl: "));
  config = source(R"({"text": "a b"})");
  EXPECT_EQ(
      fault(config, Split::eval),
      "data.eval: there is no held-out data\n  name a file, or set data.eval_fraction to hold out a part of data.train");
  config = source("a b", "book.txt");
  config.eval_fraction = 0.5;
  const bool held_out = is_held_out({"", "a b"}, 0.5);
  EXPECT_EQ(fault(config, held_out ? Split::train : Split::eval),
            (folder_ / "book.txt").string() + ": no document falls into the " + (held_out ? "training" : "held-out") +
                " part\n"
                "  data.eval_fraction = 0.5 draws documents by their hash; a text file is one document\n"
                "  name a file with data.eval, or use more documents");
}

TEST(TokenFileOnTheEmbeddedWorld, EveryWordIsKnownAlsoWherePromptAndCompletionMeet) {
  const fs::path world = test::source_dir() / "recipes/world";
  const Tokenizer tokenizer = Tokenizer::load(world / "tokenizer");
  const int32_t unknown = tokenizer.token_id("<unk>").value();
  int files = 0;
  for (const auto& entry : fs::directory_iterator(world)) {
    if (entry.path().extension() != ".jsonl") continue;
    DataConfig config;
    config.train = entry.path();
    for (const TextExample& example : load_examples(config, Split::train, 200))
      EXPECT_THAT(encode_example(tokenizer, config, example).tokens, testing::Not(testing::Contains(unknown)))
          << entry.path() << ": " << example.prompt;
    ++files;
  }
  EXPECT_GT(files, 0);
}

TEST(TokenFileOnRealData, BothFamiliesGiveBackTheTextWherePromptAndAnswerMeet) {
  TESSERA_NEEDS_SHARED_DATA();
  DataConfig config;
  config.completion_field = "response";
  config.max_documents = 200;
  config.train = test::shared_data() / "datasets/train/dolly_hhrlhf.jsonl";
  const auto examples = load_examples(config, Split::train, 0);
  for (const char* name : {"gpt2", "llama2"}) {
    const Tokenizer tokenizer = Tokenizer::load(test::shared_data() / "tokenizers" / name);
    for (const TextExample& example : examples)
      for (const char* front : {"", " ", "\n", "\n\n"}) {
        const TextExample moved{example.prompt, front + example.completion};
        ASSERT_EQ(tokenizer.decode(encode_example(tokenizer, config, moved).tokens, true),
                  moved.prompt + moved.completion)
            << name;
      }
  }
}

TEST(TokenFileOnRealData, StoriesDecodeToThemselvesAndDollySplitsWhereItsAnswersBegin) {
  TESSERA_NEEDS_SHARED_DATA();
  const TemporaryFolder folder;
  const Tokenizer tokenizer = Tokenizer::load(test::shared_data() / "models/stories260K");
  DataConfig config;
  config.cache = folder.path();
  config.max_documents = 50;
  config.train = test::shared_data() / "datasets/corpora/tinystories.jsonl";
  const TokenData stories = load_split(config, tokenizer, Split::train);
  const auto texts = load_examples(config, Split::train, 0);
  ASSERT_EQ(stories.documents(), 50);
  for (int64_t d = 0; d < 50; ++d) {
    const int64_t begin = d == 0 ? 0 : stories.ends[d - 1];
    EXPECT_EQ(stories.tokens[begin], 1);
    EXPECT_EQ(tokenizer.decode(std::span(stories.tokens).subspan(begin, stories.ends[d] - begin), true),
              texts[d].completion);
  }
  config.train = test::shared_data() / "datasets/train/dolly_hhrlhf.jsonl";
  config.completion_field = "response";
  for (const TextExample& example : load_examples(config, Split::train, 0)) {
    const EncodedExample encoded = encode_example(tokenizer, config, example);
    // The joined text's own tokens differ at most where the two parts meet.
    EXPECT_EQ(tokenizer.decode(encoded.tokens, true), example.prompt + example.completion);
    EXPECT_EQ(encoded.tokens[encoded.prompt_tokens - 1], tokenizer.encode(example.prompt).back());
  }
}

}  // namespace
}  // namespace tessera
