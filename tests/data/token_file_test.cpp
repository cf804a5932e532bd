#include "data/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "core/error.h"
#include "data/data_source.h"
#include "data/encoding.h"
#include "io/hdf5_file.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;
using test::write_file;
using testing::ElementsAre;

// Words by number: <unk> 0, <s> 1, </s> 2, a 3, b 4, c 5, = 6. White space parts them and is dropped.
constexpr const char* kWords = R"({"version": "1.0", "added_tokens": [
 {"id": 1, "content": "<s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
 {"id": 2, "content": "</s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
 "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
 "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "c": 5, "=": 6}}})";

// Letters in the manner of SentencePiece: every text gets a "▁" in front, spaces become "▁", and "▁b" is one token.
constexpr const char* kPieces = R"({"version": "1.0", "added_tokens": [
 {"id": 1, "content": "<s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
 {"id": 2, "content": "</s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
 "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
   {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
 "pre_tokenizer": null, "post_processor": null,
 "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
   {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
 "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
   "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "▁": 4, "a": 5, "b": 6, "▁b": 7, "ab": 8}, "merges": ["▁ b", "a b"]}})";

Tokenizer tokenizer_of(const fs::path& folder, const char* json, const std::string& config) {
  fs::create_directories(folder);
  write_file(folder / "tokenizer.json", json);
  write_file(folder / "tokenizer_config.json", config);
  return Tokenizer::load(folder);
}

constexpr const char* kBoth =
    R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "add_eos_token": true})";
constexpr const char* kNeither =
    R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false, "add_eos_token": false})";

class TokenFile : public testing::Test {
 protected:
  DataConfig source(const std::string& content, const std::string& name = "train.jsonl") {
    write_file(folder_ / name, content);
    DataConfig config;
    config.train = folder_ / name;
    config.cache = folder_ / "cache";
    return config;
  }
  std::string fault(const DataConfig& config, Split split = Split::train) {
    try {
      load_split(config, words_, split);
    } catch (const UserError& error) {
      return error.what();
    }
    return "no fault";
  }
  std::vector<fs::path> cached() {
    std::vector<fs::path> files;
    if (fs::exists(folder_ / "cache"))
      for (const auto& entry : fs::directory_iterator(folder_ / "cache")) files.push_back(entry.path());
    return files;
  }
  TemporaryFolder folder_;
  Tokenizer words_ = tokenizer_of(folder_ / "words", kWords, kBoth);
};

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

TEST_F(TokenFile, ThatAnOlderVersionMadeIsMadeAgainUnderItsName) {
  const DataConfig config = source(R"({"prompt": "a", "completion": "b c"})");
  const Tokenizer bare = tokenizer_of(folder_ / "bare", kWords, kNeither);
  const TokenData made = load_split(config, bare, Split::train);
  const fs::path file = cached().at(0), left = folder_ / "old.h5";
  {
    const Hdf5File now = Hdf5File::open(file);
    Hdf5File old = Hdf5File::create(left);
    for (const char* text : {"/format", "/recipe"}) old.write_text(text, now.read_text(text));
    for (const char* number : {"/version", "/skipped_documents"}) old.write_integer(number, now.read_integer(number));
    const auto flat = [](const auto& values, DType dtype) {
      return ConstView(values.data(), {static_cast<int64_t>(values.size())}, dtype);
    };
    old.write("/tokens", flat(made.tokens, DType::i32));
    old.write("/scored", flat(made.scored, DType::u8));
    old.write("/document_ends", flat(made.ends, DType::i64));
    old.seal();
  }
  fs::rename(left, file);
  std::string notice;
  const TokenData again = load_split(config, bare, Split::train, &notice);
  EXPECT_THAT(notice, testing::EndsWith("; it was there, but an older version of this program made it"));
  EXPECT_EQ(again.hash, made.hash);
  EXPECT_EQ(again.tokens, made.tokens);
  EXPECT_THAT(again.has_prompt, ElementsAre(1));
  EXPECT_THAT(cached(), ElementsAre(file));
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

TEST_F(TokenFile, IsMadeOnceAndThenRead) {
  const DataConfig config = source(R"({"text": "a b"})");
  std::string first, second;
  const TokenData made = load_split(config, words_, Split::train, &first),
                  read = load_split(config, words_, Split::train, &second);
  EXPECT_THAT(cached(), ElementsAre(token_file_path(config, words_, Split::train)));
  EXPECT_THAT(first, testing::StartsWith("prepared " + cached()[0].string() + ": 1 documents, 4 tokens, from "));
  EXPECT_EQ(second, "");
  EXPECT_EQ(made.tokens, read.tokens);
  EXPECT_EQ(made.scored, read.scored);
  EXPECT_EQ(made.ends, read.ends);
  EXPECT_EQ(made.hash, read.hash);
  EXPECT_EQ(made.hash.size(), 64u);
}

TEST_F(TokenFile, ARunOfTheFirstRulesGoesOnWithTheTokensThatItBeganWith) {
  const DataConfig config = source(R"({"text": "a b"})");
  const TokenData made = load_split(config, words_, Split::train);
  const fs::path path = cached().at(0);
  const std::string name = path.filename().string();
  ASSERT_THAT(name, testing::EndsWith("-2.h5"));
  fs::rename(path, path.parent_path() / (name.substr(0, name.size() - 5) + ".h5"));
  std::string notice;
  EXPECT_EQ(load_split(config, words_, Split::train, &notice, Rules::first).tokens, made.tokens);
  EXPECT_EQ(notice, "");
  load_split(config, words_, Split::train, &notice);
  EXPECT_THAT(notice, testing::StartsWith("prepared " + path.string()));
}

TEST_F(TokenFile, HasTheLayoutOfItsPage) {
  const DataConfig config = source(R"({"text": "a b"})");
  load_split(config, words_, Split::train);
  const Hdf5File file = Hdf5File::open(cached().at(0));
  EXPECT_THAT(file.list("/"),
              ElementsAre("document_ends", "format", "recipe", "scored", "skipped_documents", "tokens", "version"));
  EXPECT_EQ(file.read_text("/format"), "tessera tokens");
  EXPECT_EQ(file.read_integer("/version"), 1);
  EXPECT_EQ(file.dtype_of("/tokens"), DType::i32);
  EXPECT_EQ(file.dtype_of("/scored"), DType::u8);
  EXPECT_EQ(file.dtype_of("/document_ends"), DType::i64);
}

TEST_F(TokenFile, FollowsTheContentNotTheName) {
  const DataConfig config = source(R"({"text": "a b"})"), copy = source(R"({"text": "a b"})", "copy.jsonl");
  EXPECT_EQ(token_file_path(config, words_, Split::train), token_file_path(copy, words_, Split::train));
  const DataConfig changed = source(R"({"text": "a c"})");
  EXPECT_NE(token_file_path(changed, words_, Split::train), token_file_path(copy, words_, Split::train));
}

TEST_F(TokenFile, EverySettingAndTheTokenizerHaveAFileOfTheirOwn) {
  const DataConfig plain = source(R"({"text": "a b"})");
  std::vector<DataConfig> all(8, plain);
  all[1].text_field = "completion";
  all[2].completion_field = "text";
  all[3].prompt_field = "x";
  all[4].prompt_template = "x";
  all[5].completion_template = "x";
  all[6].max_documents = 1;
  all[7].eval_fraction = 0.25;
  std::set<fs::path> paths;
  for (const DataConfig& config : all) paths.insert(token_file_path(config, words_, Split::train));
  paths.insert(token_file_path(all[7], words_, Split::eval));
  paths.insert(token_file_path(plain, tokenizer_of(folder_ / "bare", kWords, kNeither), Split::train));
  EXPECT_EQ(paths.size(), 10u);
}

TEST_F(TokenFile, ADamagedFileIsMadeAgain) {
  const DataConfig config = source(R"({"text": "a b c a b c"})");
  const TokenData made = load_split(config, words_, Split::train);
  const fs::path path = cached().at(0);
  const std::string whole = test::read_file(path);
  std::string altered = whole;
  altered[altered.size() / 2] ^= 1;
  for (const std::string& damaged :
       {whole.substr(0, whole.size() / 2), altered, std::string(), std::string("no HDF5")}) {
    write_file(path, damaged);
    std::string notice;
    const TokenData again = load_split(config, words_, Split::train, &notice);
    EXPECT_EQ(again.tokens, made.tokens);
    EXPECT_EQ(again.hash, made.hash);
    EXPECT_THAT(notice, testing::HasSubstr("; it was there, but "));
    EXPECT_EQ(test::read_file(path), whole);
  }
}

TEST_F(TokenFile, AFileThatHoldsSomethingElseIsMadeAgain) {
  const DataConfig one = source(R"({"text": "a b"})", "one.jsonl"), two = source(R"({"text": "c c"})", "two.jsonl");
  load_split(one, words_, Split::train);
  fs::copy_file(token_file_path(one, words_, Split::train), token_file_path(two, words_, Split::train));
  std::string notice;
  EXPECT_THAT(load_split(two, words_, Split::train, &notice).tokens, ElementsAre(1, 5, 5, 2));
  EXPECT_THAT(notice, testing::EndsWith("; it was there, but the token file was made from something else"));
}

TEST_F(TokenFile, RanksMayPrepareAtOnce) {
  std::string content;
  for (int i = 0; i < 500; ++i) content += "{\"text\": \"a b c\"}\n";
  const DataConfig config = source(content);
  std::vector<TokenData> results(4);
  std::vector<std::thread> ranks;
  for (TokenData& result : results) ranks.emplace_back([&] { result = load_split(config, words_, Split::train); });
  for (std::thread& rank : ranks) rank.join();
  for (const TokenData& result : results) {
    EXPECT_EQ(result.documents(), 500);
    EXPECT_EQ(result.tokens, results[0].tokens);
  }
  EXPECT_EQ(cached().size(), 1u);
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

TEST_F(TokenFile, AFaultInTheDataLeavesNoFile) {
  const DataConfig config = source("{\"text\": \"a b\"}\n{\"txt\": \"a b\"}\n");
  EXPECT_THAT(fault(config),
              testing::StartsWith(config.train.string() + ":2: the record has neither \"text\" nor \"completion\""));
  EXPECT_TRUE(cached().empty());
}

TEST_F(TokenFile, ACacheThatCannotBeMadeIsNamed) {
  DataConfig config = source(R"({"text": "a b"})");
  write_file(folder_ / "cache", "a file");
  EXPECT_THAT(fault(config),
              testing::StartsWith("data.cache: the folder \"" + (folder_ / "cache").string() + "\" cannot be made: "));
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
