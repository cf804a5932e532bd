// Ids of the tokenizers that models use, as the reference libraries give them.

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json.h"
#include "data/tokenizer.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

std::vector<std::string> split_at(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string::npos; begin = end + separator.size())
    parts.push_back(text.substr(begin, end - begin));
  parts.push_back(text.substr(begin));
  return parts;
}

Ids ids_of(const Json& array) {
  Ids ids;
  for (const Json& id : array.items()) ids.push_back(static_cast<int32_t>(id.as_integer()));
  return ids;
}

fs::path shared_tokenizer(const std::string& name) {
  return test::shared_data() / (name == "stories260K" ? "models" : "tokenizers") / name;
}

/// How the reference treated text that spells a special token.
Tokenizer::Special reference_mode(const std::string& name) {
  return name == "llama2" || name == "stories260K" ? Tokenizer::Special::plain : Tokenizer::Special::parse;
}

class SharedTokenizer : public testing::TestWithParam<const char*> {};

TEST_P(SharedTokenizer, GivesTheReferenceIdsAndTheTextBack) {
  TESSERA_NEEDS_SHARED_DATA();
  const std::string name = GetParam();
  const Tokenizer tokenizer = Tokenizer::load(shared_tokenizer(name));
  int cases = 0;
  for (const std::string& line :
       split_at(test::read_file(test::shared_data() / "tokenizers" / "reference_encodings.jsonl"), "\n")) {
    if (line.empty()) continue;
    const Json record = Json::parse(line, "reference");
    const std::string& text = record.at("text").as_string();
    const Ids expected = ids_of(record.at("ids").at(name));
    EXPECT_EQ(tokenizer.encode(text, reference_mode(name)), expected) << '"' << text << '"';
    const std::string decoded = tokenizer.decode(expected);
    if (name == "qwen3")
      EXPECT_EQ(tokenizer.encode(decoded, reference_mode(name)), expected);  // the text's NFC
    else
      EXPECT_EQ(decoded, text);
    ++cases;
  }
  EXPECT_EQ(cases, 68);
}
INSTANTIATE_TEST_SUITE_P(All, SharedTokenizer, testing::Values("gpt2", "llama2", "llama3", "qwen3", "stories260K"));

class LlamaCppCases : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(LlamaCppCases, AllComeOutExactly) {
  TESSERA_NEEDS_SHARED_DATA();
  const auto [file, name] = GetParam();
  const Tokenizer tokenizer = Tokenizer::load(shared_tokenizer(name));
  const fs::path stem = test::shared_data() / "tokenizers" / "llamacpp_cases" / file;
  const auto texts = split_at(test::read_file(stem.string() + ".inp"), "\n__ggml_vocab_test__\n");
  const auto lines = split_at(test::read_file(stem.string() + ".out"), "\n");
  ASSERT_EQ(texts.size(), 47u);
  ASSERT_GE(lines.size(), 47u);
  for (size_t i = 0; i < texts.size(); ++i) {
    std::string found;
    for (const int32_t id : tokenizer.encode(texts[i], reference_mode(name))) found += fmt::format(" {}", id);
    EXPECT_EQ(found, lines[i]) << '"' << texts[i] << '"';
  }
}
INSTANTIATE_TEST_SUITE_P(All, LlamaCppCases,
                         testing::Values(std::pair("gpt-2", "gpt2"), std::pair("llama-spm", "llama2"),
                                         std::pair("llama-bpe", "llama3"), std::pair("qwen2", "qwen3")));

}  // namespace
}  // namespace tessera
