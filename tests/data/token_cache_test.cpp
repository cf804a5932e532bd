// The files that prepared data are kept in: made once, made again where they are not what they should be.

#include <gmock/gmock.h>

#include <array>
#include <atomic>
#include <fstream>
#include <set>
#include <thread>

#include "data/token_files.h"
#include "io/hdf5_file.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;

class TokenCache : public TokenFile {
 protected:
  static std::string lines_of(const std::string& text, int count) {
    std::string all;
    for (int i = 0; i < count; ++i) all += "{\"text\": \"" + text + "\"}\n";
    return all;
  }
};

TEST_F(TokenCache, IsMadeOnceAndThenRead) {
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

TEST_F(TokenCache, HasTheLayoutOfItsPage) {
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

TEST_F(TokenCache, FollowsTheContentNotTheName) {
  const DataConfig config = source(R"({"text": "a b"})"), copy = source(R"({"text": "a b"})", "copy.jsonl");
  EXPECT_EQ(token_file_path(config, words_, Split::train), token_file_path(copy, words_, Split::train));
  const DataConfig changed = source(R"({"text": "a c"})");
  EXPECT_NE(token_file_path(changed, words_, Split::train), token_file_path(copy, words_, Split::train));
}

TEST_F(TokenCache, EverySettingAndTheTokenizerHaveAFileOfTheirOwn) {
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

TEST_F(TokenCache, ADamagedFileIsMadeAgain) {
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

TEST_F(TokenCache, AFileThatHoldsSomethingElseIsMadeAgain) {
  const DataConfig one = source(R"({"text": "a b"})", "one.jsonl"), two = source(R"({"text": "c c"})", "two.jsonl");
  load_split(one, words_, Split::train);
  fs::copy_file(token_file_path(one, words_, Split::train), token_file_path(two, words_, Split::train));
  std::string notice;
  EXPECT_THAT(load_split(two, words_, Split::train, &notice).tokens, ElementsAre(1, 5, 5, 2));
  EXPECT_THAT(notice, testing::EndsWith("; it was there, but the token file was made from something else"));
}

TEST_F(TokenCache, ThatAnOlderVersionMadeIsMadeAgainUnderItsName) {
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

TEST_F(TokenCache, ARunOfTheFirstRulesGoesOnWithTheTokensThatItBeganWith) {
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

TEST_F(TokenCache, RanksMayPrepareAtOnce) {
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

TEST_F(TokenCache, AFaultInTheDataLeavesNoFile) {
  const DataConfig config = source("{\"text\": \"a b\"}\n{\"txt\": \"a b\"}\n");
  EXPECT_THAT(fault(config),
              testing::StartsWith(config.train.string() + ":2: the record has neither \"text\" nor \"completion\""));
  EXPECT_TRUE(cached().empty());
}

TEST_F(TokenCache, KeepsNothingOfASourceThatIsWrittenToMeanwhile) {
  const DataConfig config = source(lines_of("a b", 60'000));
  std::atomic<bool> has_begun{false}, has_ended{false};
  std::thread writer([&] {
    std::fstream file(config.train, std::ios::in | std::ios::out | std::ios::binary);
    for (int i = 0; !has_ended; ++i) {  // a record of the same length at every moment
      file.seekp(-4, std::ios::end).put(i % 2 == 0 ? 'c' : 'b').flush();
      has_begun = true;
    }
  });
  while (!has_begun) std::this_thread::yield();
  const std::string told = fault(config);
  has_ended = true;
  writer.join();
  EXPECT_EQ(told, config.train.string() + ": was written to while it was read\n  start again when it is whole");
  EXPECT_TRUE(cached().empty());
  EXPECT_EQ(load_split(config, words_, Split::train).documents(), 60'000);  // what the hint says
}

TEST_F(TokenCache, OfASourceThatIsReplacedMeanwhileIsThatOfOneOfTheTwo) {
  const std::array contents = {lines_of("a b", 5000), lines_of("a c", 5000)};
  std::vector<std::vector<int32_t>> expected;
  for (const std::string& content : contents)
    expected.push_back(load_split(source(content), words_, Split::train).tokens);
  fs::remove_all(folder_ / "cache");
  const DataConfig config = source(contents[0]);
  std::atomic<bool> has_ended{false};
  std::thread writer([&] {
    for (size_t i = 1; !has_ended; i = 1 - i) {
      write_file(folder_ / "next", contents[i]);
      fs::rename(folder_ / "next", config.train);
    }
  });
  for (int time = 0; time < 8; ++time)
    EXPECT_THAT(expected, testing::Contains(load_split(config, words_, Split::train).tokens));
  has_ended = true;
  writer.join();
  for (size_t i = 0; i < contents.size(); ++i)
    EXPECT_EQ(load_split(source(contents[i]), words_, Split::train).tokens, expected[i]) << "what is cached is wrong";
}

TEST_F(TokenCache, ThatCannotBeMadeIsNamed) {
  DataConfig config = source(R"({"text": "a b"})");
  write_file(folder_ / "cache", "a file");
  EXPECT_THAT(fault(config),
              testing::StartsWith("data.cache: the folder \"" + (folder_ / "cache").string() + "\" cannot be made: "));
}

}  // namespace
}  // namespace tessera
