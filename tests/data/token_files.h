#pragma once
// Tokenizers of a few words, and data files for them.

#include <gtest/gtest.h>

#include "core/error.h"
#include "data/data_source.h"
#include "data/encoding.h"
#include "data/preparation.h"
#include "data/token_file.h"
#include "support/paths.h"

namespace tessera::test {

namespace fs = std::filesystem;

// Words by number: <unk> 0, <s> 1, </s> 2, a 3, b 4, c 5, = 6. White space parts them and is dropped.
inline constexpr const char* kWords = R"({"version": "1.0", "added_tokens": [
 {"id": 1, "content": "<s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
 {"id": 2, "content": "</s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
 "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
 "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "c": 5, "=": 6}}})";

// Letters in the manner of SentencePiece: every text gets a "▁" in front, spaces become "▁", and "▁b" is one token.
inline constexpr const char* kPieces = R"({"version": "1.0", "added_tokens": [
 {"id": 1, "content": "<s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
 {"id": 2, "content": "</s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
 "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
   {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
 "pre_tokenizer": null, "post_processor": null,
 "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
   {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
 "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
   "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "▁": 4, "a": 5, "b": 6, "▁b": 7, "ab": 8}, "merges": ["▁ b", "a b"]}})";

inline Tokenizer tokenizer_of(const fs::path& folder, const char* json, const std::string& config) {
  fs::create_directories(folder);
  write_file(folder / "tokenizer.json", json);
  write_file(folder / "tokenizer_config.json", config);
  return Tokenizer::load(folder);
}

inline constexpr const char* kBoth =
    R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "add_eos_token": true})";
inline constexpr const char* kNeither =
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

}  // namespace tessera::test
