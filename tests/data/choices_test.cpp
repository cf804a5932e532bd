// Label words: from records with a label to rows that hold every choice of an example.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "core/error.h"
#include "core/random.h"
#include "data/data_source.h"
#include "data/packed_dataset.h"
#include "data/token_data.h"
#include "data/token_file.h"
#include "io/hdf5_file.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;
using test::write_file;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Words by number: <unk> 0, <s> 1, </s> 2, a 3, b 4, c 5, = 6. White space parts them and is dropped.
constexpr const char* kWords = R"({"version": "1.0", "added_tokens": [
 {"id": 1, "content": "<s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
 {"id": 2, "content": "</s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
 "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
 "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "c": 5, "=": 6}}})";

Tokenizer tokenizer_of(const fs::path& folder, bool adds_both) {
  fs::create_directories(folder);
  write_file(folder / "tokenizer.json", kWords);
  write_file(folder / "tokenizer_config.json",
             fmt::format(R"({{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": {0}, "add_eos_token": {0}}})",
                         adds_both));
  return Tokenizer::load(folder);
}

constexpr const char* kRecords = R"({"x": "a a", "label": 1}
{"x": "b", "label": 0}
)";

class LabelWords : public testing::Test {
 protected:
  DataConfig source(const std::string& content, const std::string& name = "train.jsonl") {
    write_file(folder_ / name, content);
    DataConfig config;
    config.train = folder_ / name;
    config.cache = folder_ / "cache";
    config.prompt_template = "{x} =";
    config.label_words = {" b", " c a"};
    return config;
  }
  TokenData load(const DataConfig& config) { return load_split(config, words_, Split::train); }
  std::string fault(const DataConfig& config) {
    try {
      load(config);
    } catch (const UserError& error) {
      return error.what();
    }
    return "no fault";
  }
  TemporaryFolder folder_;
  Tokenizer words_ = tokenizer_of(folder_ / "words", true);
};

TEST_F(LabelWords, MakeADocumentOfEachChoiceAndRememberTheRightOne) {
  const TokenData data = load(source(kRecords));
  EXPECT_THAT(data.tokens,
              ElementsAre(1, 3, 3, 6, 4, 2, /**/ 1, 3, 3, 6, 5, 3, 2, /**/ 1, 4, 6, 4, 2, /**/ 1, 4, 6, 5, 3, 2));
  EXPECT_THAT(data.scored,
              ElementsAre(0, 0, 0, 0, 1, 1, /**/ 0, 0, 0, 0, 1, 1, 1, /**/ 0, 0, 0, 1, 1, /**/ 0, 0, 0, 1, 1, 1));
  EXPECT_THAT(data.ends, ElementsAre(6, 13, 18, 24));
  EXPECT_EQ(data.choices, 2);
  EXPECT_THAT(data.answers, ElementsAre(1, 0));
}

TEST_F(LabelWords, OfTheAnswersAloneAreTheDocumentsOfPromptsAndCompletions) {
  const DataConfig config = source(kRecords);
  DataConfig plain = source(R"({"x": "a a", "completion": " c a"}
{"x": "b", "completion": " b"}
)",
                            "plain.jsonl");
  plain.label_words.clear();
  const TokenData answers = answers_only(load(config)), expected = load(plain);
  EXPECT_EQ(answers.tokens, expected.tokens);
  EXPECT_EQ(answers.scored, expected.scored);
  EXPECT_EQ(answers.ends, expected.ends);
  EXPECT_EQ(answers.choices, 0);
  EXPECT_THAT(answers.answers, IsEmpty());
  EXPECT_EQ(answers.hash, load(config).hash);
  EXPECT_EQ(answers_only(expected).tokens, expected.tokens);
}

TEST_F(LabelWords, AreChosenByNumberOrByTheNameOfTheLabel) {
  DataConfig config = source(R"({"x": "a", "mood": {"name": "good"}}
{"x": "a", "mood": {"name": "bad"}}
)");
  config.label_field = "mood.name";
  config.labels = {"bad", "good"};
  EXPECT_THAT(load(config).answers, ElementsAre(1, 0));
  config = source(R"({"x": "a", "label": true}
{"x": "a", "label": "false"}
)");
  config.labels = {"true", "false"};
  EXPECT_THAT(load(config).answers, ElementsAre(0, 1));
  const auto examples = load_examples(config, Split::train, 0);
  EXPECT_EQ(examples[0].completion, " b");
  EXPECT_EQ(examples[0].choice, 0);
  EXPECT_EQ(examples[1].completion, " c a");
}

TEST_F(LabelWords, TakeThePromptAsItIsWithoutATemplate) {
  DataConfig config = source(R"({"sentence": "a a</s>b", "label": 0})");
  config.prompt_template.clear();
  config.prompt_field = "sentence";
  EXPECT_THAT(answers_only(load(config)).tokens, ElementsAre(1, 3, 0, 4, 2));
}

TEST_F(LabelWords, RefuseALabelThatHasNoWord) {
  DataConfig config = source("{\"x\": \"a\", \"label\": 1}\n\n{\"x\": \"a\", \"label\": -1}\n");
  const std::string file = config.train.string();
  EXPECT_EQ(fault(config),
            file +
                ":3: the label \"-1\" is none of: \"0\", \"1\"\n"
                "  data.labels lists what the member \"label\" may say, in the order of data.label_words");
  config.labels = {"no", "yes"};
  EXPECT_THAT(fault(config), testing::StartsWith(file + ":1: the label \"1\" is none of: \"no\", \"yes\"\n"));
  config.label_field = "labels";
  EXPECT_THAT(fault(config), testing::StartsWith(file + ":1: the member \"labels\" is missing or null\n"));
  EXPECT_FALSE(fs::exists(folder_ / "cache"));
}

TEST_F(LabelWords, RefuseWordsThatTheTokenizerCannotTellApart) {
  DataConfig config = source(kRecords);
  config.label_words = {" b", " c", "b"};
  EXPECT_EQ(fault(config),
            "data.label_words: the label words \" b\" and \"b\" are the same tokens\n"
            "  the tokenizer does not know them, or drops what sets them apart: choose other words");
  config.label_words = {" great", " terrible"};
  EXPECT_THAT(fault(config), HasSubstr("the label words \" great\" and \" terrible\" are the same tokens"));
  config.label_words = {" b", " "};
  EXPECT_EQ(fault(config),
            "data.label_words: the label word \" \" is no token for this tokenizer\n"
            "  name a word that the model can predict");
}

TEST_F(LabelWords, NeedRecords) {
  const DataConfig config = source("a b", "book.txt");
  EXPECT_EQ(fault(config), config.train.string() +
                               ": data.label_words is set, and a text file has no labels\n"
                               "  give a .jsonl file whose records have a label, or leave data.label_words out");
}

TEST_F(LabelWords, ThatWouldBeginTheDocumentAreSkipped) {
  const Tokenizer bare = tokenizer_of(folder_ / "bare", false);
  DataConfig config = source(R"({"x": "", "label": 1}
{"x": "a", "label": 1}
)");
  config.prompt_template = "{x}";
  std::string notice;
  const TokenData data = load_split(config, bare, Split::train, &notice);
  EXPECT_THAT(data.tokens, ElementsAre(3, 4, /**/ 3, 5, 3));
  EXPECT_THAT(data.answers, ElementsAre(1));
  EXPECT_THAT(notice, testing::EndsWith("; skipped 1 with nothing to score"));
}

TEST_F(LabelWords, AreHeldOutLikeTheSameCompletions) {
  std::string labelled, plain;
  for (int i = 0; i < 400; ++i) {
    labelled += fmt::format("{{\"x\": \"a {}\", \"label\": {}}}\n", i, i % 2);
    plain += fmt::format("{{\"x\": \"a {}\", \"completion\": \"{}\"}}\n", i, i % 2 ? " c a" : " b");
  }
  DataConfig with = source(labelled), without = source(plain, "plain.jsonl");
  without.label_words.clear();
  with.eval_fraction = without.eval_fraction = 0.3;
  const TokenData held_out = load_split(with, words_, Split::eval);
  EXPECT_EQ(held_out.documents(), 2 * static_cast<int64_t>(held_out.answers.size()));
  EXPECT_EQ(answers_only(held_out).tokens, load_split(without, words_, Split::eval).tokens);
}

TEST_F(LabelWords, AreKeptInTheCacheWithTheirAnswers) {
  const DataConfig config = source(kRecords);
  const TokenData made = load(config);
  const fs::path path = token_file_path(config, words_, Split::train);
  {
    const Hdf5File file = Hdf5File::open(path);
    EXPECT_THAT(file.list("/"), ElementsAre("answers", "choices", "document_ends", "format", "recipe", "scored",
                                            "skipped_documents", "tokens", "version"));
    EXPECT_THAT(file.read_text("/recipe"),
                testing::EndsWith("\njsonl, documents 0\nchoices 2\n5 label\n1 0\n2  b\n1 1\n4  c a\n"));
  }
  std::string notice;
  const TokenData read = load_split(config, words_, Split::train, &notice);
  EXPECT_EQ(notice, "");
  EXPECT_EQ(read.tokens, made.tokens);
  EXPECT_EQ(read.ends, made.ends);
  EXPECT_EQ(read.choices, 2);
  EXPECT_EQ(read.answers, made.answers);
}

TEST_F(LabelWords, LeaveThePlainDatasCacheAsItWas) {
  DataConfig config = source(R"({"x": "a", "completion": "b"})");
  config.label_words.clear();
  load(config);
  const Hdf5File file = Hdf5File::open(token_file_path(config, words_, Split::train));
  EXPECT_THAT(file.read_text("/recipe"),
              testing::EndsWith("\n4 text\n6 prompt\n10 completion\n5 {x} =\n0 \njsonl, documents 0\n"));
}

TEST_F(LabelWords, EachSettingHasAFileOfItsOwn) {
  std::vector<DataConfig> all(6, source(kRecords));
  all[1].label_words = {" b", " a"};
  all[2].label_words = {" c a", " b"};
  all[3].labels = {"1", "0"};
  all[4].label_field = "x";
  all[5].label_words.clear();
  std::set<fs::path> paths;
  for (const DataConfig& config : all) paths.insert(token_file_path(config, words_, Split::train));
  EXPECT_EQ(paths.size(), 6u);
  DataConfig spelled = all[0];
  spelled.labels = {"0", "1"};
  EXPECT_EQ(token_file_path(spelled, words_, Split::train), token_file_path(all[0], words_, Split::train));
}

TEST_F(LabelWords, ACacheFileWhoseAnswersAreNoChoicesIsMadeAgain) {
  const DataConfig config = source(kRecords);
  const TokenData made = load(config);
  const fs::path path = token_file_path(config, words_, Split::train);
  const std::string whole = test::read_file(path), recipe = Hdf5File::open(path).read_text("/recipe");
  for (std::vector<int32_t> answers : {std::vector<int32_t>{1, 2}, {1}, {1, -1}, {0, 0, 0}}) {
    Hdf5File file = Hdf5File::create(path);
    file.write_text("/recipe", recipe);
    file.write("/tokens", ConstView(made.tokens.data(), {24}, DType::i32));
    file.write("/scored", ConstView(made.scored.data(), {24}, DType::u8));
    file.write("/document_ends", ConstView(made.ends.data(), {4}, DType::i64));
    file.write_integer("/choices", 2);
    file.write("/answers", ConstView(answers.data(), {static_cast<int64_t>(answers.size())}, DType::i32));
    file.seal();
    std::string notice;
    EXPECT_EQ(load_split(config, words_, Split::train, &notice).answers, made.answers);
    EXPECT_THAT(notice, testing::EndsWith("; it was there, but the token file contradicts itself"));
    EXPECT_EQ(test::read_file(path), whole);
  }
}

/// Examples with so many choices, of 2 to `longest` tokens each. Token i of the data is i; every last token is scored.
TokenData random_examples(uint64_t seed, int64_t examples, int64_t choices, int64_t longest) {
  TokenData data;
  data.choices = choices;
  for (int64_t d = 0; d < examples * choices; ++d) {
    const auto length = 2 + draw_below(seed, static_cast<uint64_t>(d), static_cast<uint64_t>(longest - 1));
    data.scored.insert(data.scored.end(), length - 1, 0);
    data.scored.push_back(1);
    data.ends.push_back(static_cast<int64_t>(data.scored.size()));
  }
  for (int64_t e = 0; e < examples; ++e)
    data.answers.push_back(
        static_cast<int32_t>(draw_below(seed + 1, static_cast<uint64_t>(e), static_cast<uint64_t>(choices))));
  data.tokens.resize(data.scored.size());
  std::iota(data.tokens.begin(), data.tokens.end(), 0);
  return data;
}

TEST(PackedChoices, OfAnExampleStandTogetherInOneRowInTheirOrder) {
  for (const int64_t choices : {2, 3, 7}) {
    const TokenData data = random_examples(static_cast<uint64_t>(choices), 200, choices, 9);
    const PackedDataset dataset(data, 64, 5);
    std::set<int64_t> seen;
    for (int64_t row = 0; row < dataset.rows(); ++row) {
      const PackedBatch batch = dataset.batch(std::vector<int64_t>{row}, 0);
      ASSERT_EQ(batch.documents.size() % static_cast<size_t>(choices), 0u);
      for (size_t i = 0; i < batch.documents.size(); ++i) {
        const TokenRange& range = batch.documents[i];
        const auto found = std::upper_bound(data.ends.begin(), data.ends.end(), batch.ids[range.begin]);
        const int64_t document = found - data.ends.begin(), example = document / choices;
        EXPECT_EQ(range.choice, static_cast<int64_t>(i) % choices);
        EXPECT_EQ(range.choice, document % choices);
        EXPECT_EQ(range.answer, data.answers[example] == range.choice);
        EXPECT_EQ(batch.ids[range.end - 1] + 1, *found) << "cut";
        EXPECT_TRUE(seen.insert(document).second) << "twice";
        if (range.choice > 0) {
          EXPECT_EQ(batch.documents[i - 1].end, range.begin);
          EXPECT_EQ(batch.ids[range.begin - 1] + 1, batch.ids[range.begin]) << "of another example";
        }
      }
    }
    EXPECT_EQ(static_cast<int64_t>(seen.size()), data.documents());
    EXPECT_EQ(dataset.scored_tokens(), data.documents());
    EXPECT_GT(dataset.fill(), 0.6);
  }
}

TEST(PackedChoices, PlainDocumentsAreNoChoices) {
  TokenData data = random_examples(1, 10, 2, 9);
  data.choices = 0;
  const PackedDataset dataset(data, 16, 1);
  for (const TokenRange& range : dataset.batch(std::vector<int64_t>{0}, 0).documents) {
    EXPECT_EQ(range.choice, -1);
    EXPECT_FALSE(range.answer);
  }
}

TEST(PackedChoices, ThatDoNotFitIntoARowAreAnErrorThatTellsTheLength) {
  TokenData data = random_examples(3, 20, 2, 4);
  const int64_t begin = data.ends.back();
  for (int i = 0; i < 12; ++i) data.tokens.push_back(1), data.scored.push_back(i % 6 == 5);
  data.ends.insert(data.ends.end(), {begin + 6, begin + 12});
  data.answers.push_back(0);
  EXPECT_EQ(PackedDataset(data, 12, 1).choices(), 2);
  try {
    PackedDataset(data, 11, 1);
    FAIL() << "accepted";
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(),
                 "train.sequence_length: the 2 choices of example 21 take 12 tokens, a row has 11\n"
                 "  all choices of an example stand in one row; this one is the longest: set train.sequence_length to "
                 "12 or more");
  }
}

TEST(LabelWordsOnRealData, Sst2IsReadWithTheMeZOPrompt) {
  TESSERA_NEEDS_SHARED_DATA();
  const TemporaryFolder folder;
  DataConfig config;
  config.cache = folder.path();
  config.train = test::shared_data() / "datasets/train/sst2_train_first10000.jsonl";
  config.eval = test::shared_data() / "datasets/eval/sst2_dev.jsonl";
  config.prompt_template = "{sentence} It was";
  config.label_words = {" terrible", " great"};
  for (const char* name : {"gpt2", "llama2"}) {
    const Tokenizer tokenizer = Tokenizer::load(test::shared_data() / "tokenizers" / name);
    const TokenData dev = load_split(config, tokenizer, Split::eval);
    ASSERT_EQ(dev.documents(), 2 * 524);
    ASSERT_EQ(dev.answers.size(), 524u);
    const auto positive = std::count(dev.answers.begin(), dev.answers.end(), 1);
    const std::string file = test::read_file(config.eval);
    int64_t labelled = 0;
    for (size_t at = 0; (at = file.find("\"label\": 1}", at)) != std::string::npos; ++at) ++labelled;
    EXPECT_EQ(positive, labelled);
    EXPECT_EQ(dev.answers[0], 1);
    EXPECT_EQ(tokenizer.decode(std::span(dev.tokens).subspan(0, dev.ends[0]), true),
              "it 's a charming and often affecting journey . It was terrible");
    EXPECT_EQ(tokenizer.decode(std::span(dev.tokens).subspan(dev.ends[0], dev.ends[1] - dev.ends[0]), true),
              "it 's a charming and often affecting journey . It was great");
    for (int64_t d = 1; d < dev.documents(); ++d) {
      const int64_t begin = dev.ends[d - 1];
      const auto scored = std::count(dev.scored.begin() + begin, dev.scored.begin() + dev.ends[d], uint8_t{1});
      EXPECT_EQ(scored, std::string(name) == "gpt2" ? 1 : tokenizer.encode(d % 2 ? "great" : "terrible").size());
    }
    EXPECT_EQ(load_split(config, tokenizer, Split::train).answers.size(), 10000u);
    EXPECT_EQ(PackedDataset(dev, 256, 1).documents(), 1048);
  }
}

}  // namespace
}  // namespace tessera
