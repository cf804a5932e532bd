// Lines that were altered at random are refused as the user's fault, or make requests that the engine can take.

#include <gtest/gtest.h>

#include <random>

#include "infer/request_files.h"
#include "support/random_seed.h"

namespace tessera {
namespace {

using namespace test;

const std::vector<std::string>& whole_lines() {
  static const std::vector<std::string> lines = {
      "once upon a time",
      R"({"text": "a b"})",
      R"({"prompt": "hello", "completion": " hello"})",
      R"({"custom_id": "x", "prompt": "ab", "n": 2, "best_of": 3, "temperature": 0.5, "stop": ["END"], "top_p": 0.9})",
      R"({"custom_id": "y", "prompt_token_ids": [3, 0, 261], "max_tokens": 0, "score_from": 1, "logprobs": 2})",
      R"({"custom_id": "z", "prefix": "ab", "contexts": ["c", "d"], "bad_words": ["hello"], "min_tokens": 2})",
      R"({"prompt": "a", "logit_bias": {"65": -1.5}, "allowed_token_ids": [9, 66], "num_beams": 4, "do_sample": false})",
      openai_line(R"({"model": "law", "prompt": ["ab", "c"], "echo": true, "logprobs": 1, "max_tokens": 4})"),
      openai_line(R"({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2, "logprobs": true})",
                  "/v1/chat/completions", "w"),
  };
  return lines;
}

/// Some bytes changed, taken out, doubled or taken from another line.
std::string altered(std::string line, std::mt19937& random) {
  static const std::string kPieces[] = {"{",    "}",      "[",           "]",         "\"",  ",",    ":",
                                        "null", "true",   "-1",          "1e400",     "0.5", "\\",   "\n",
                                        "\xC3", "\"n\":", "\"prompt\":", "\"seed\":", "262", "\"\"", " "};
  for (auto changes = 1 + random() % 4; changes > 0; --changes) {
    const size_t at = line.empty() ? 0 : random() % line.size();
    switch (random() % 5) {
      case 0:
        line.insert(at, kPieces[random() % std::size(kPieces)]);
        break;
      case 1:
        line.erase(at, 1 + random() % 6);
        break;
      case 2:
        line.insert(at, line.substr(at, 1 + random() % 20));
        break;
      case 3:
        line.replace(at, std::min<size_t>(1, line.size() - at), 1, static_cast<char>(random() % 256));
        break;
      case 4: {
        const std::string& other = whole_lines()[random() % whole_lines().size()];
        line.insert(at, other.substr(random() % other.size(), random() % 30));
      }
    }
  }
  return line;
}

void expect_sound(const RequestFile& file, const RequestDefaults& defaults) {
  ASSERT_FALSE(file.lines.empty());
  size_t requests = 0;
  for (const AskedLine& line : file.lines) {
    EXPECT_EQ(line.first, requests);
    EXPECT_GE(line.count, 1u);
    requests += line.count;
  }
  EXPECT_EQ(requests, file.requests.size());
  for (const Request& r : file.requests) {
    ASSERT_FALSE(r.prompt.empty());
    EXPECT_LE(std::ssize(r.prompt) + (r.max_tokens > 0), defaults.max_position);
    for (const int32_t id : r.prompt) EXPECT_TRUE(id >= 0 && id < defaults.vocab_size);
    EXPECT_TRUE(r.n >= 1 && r.best_of >= r.n);
    EXPECT_GE(r.sampling.temperature, 0);
    EXPECT_EQ(r.max_tokens == 0, r.score_from.has_value());
    EXPECT_TRUE(!r.score_from || (*r.score_from >= 1 && *r.score_from < std::ssize(r.prompt)));
    for (const std::string& stop : r.stop) EXPECT_FALSE(stop.empty());
    for (const auto& word : r.sampling.bad_words) EXPECT_FALSE(word.empty());
  }
}

TEST(RequestFuzz, AlteredLinesAreRefusedOrSound) {
  std::mt19937 random(random_seed());
  const RequestFiles files;
  static const std::string kKinds[] = {"auto", "auto", "text", "records", "batch", "openai"};
  int read = 0;
  for (int i = 0; i < (tests_are_long() ? 300000 : 4000); ++i) {
    std::string text;
    for (auto lines = 1 + random() % 2; lines > 0; --lines)
      text += altered(whole_lines()[random() % whole_lines().size()], random) + "\n";
    try {
      expect_sound(read_requests_text(text, files.name, kKinds[random() % std::size(kKinds)], files.data,
                                      files.tokenizer, files.defaults),
                   files.defaults);
      ++read;
    } catch (const UserError& error) {
      EXPECT_NE(error.where(), "") << error.what();
    }
    ASSERT_FALSE(HasFailure()) << text;
  }
  EXPECT_GT(read, 100) << "some are read";
}

}  // namespace
}  // namespace tessera
