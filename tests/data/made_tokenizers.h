#pragma once
// Small tokenizers of each kind, made and altered as JSON.

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json.h"
#include "data/tokenizer.h"
#include "data/tokenizer/byte_alphabet.h"
#include "support/paths.h"

namespace tessera::test {

using Ids = std::vector<int32_t>;

inline Json parse(const std::string& text) { return Json::parse(text, "test"); }

/// Writes the folder's files and loads it; an empty text leaves a file out.
inline Tokenizer load(const Json& tokenizer, const std::string& config = "", const std::string& special_map = "") {
  const TemporaryFolder folder;
  test::write_file(folder / "tokenizer.json", tokenizer.dump());
  if (!config.empty()) test::write_file(folder / "tokenizer_config.json", config);
  if (!special_map.empty()) test::write_file(folder / "special_tokens_map.json", special_map);
  return Tokenizer::load(folder.path());
}

/// All 256 bytes in order (id = byte), then tokens "he", "ll", "hell", "hello", " hello" (ids 256 to 260).
inline Json byte_level() {
  Json vocab = Json::object();
  const auto& alphabet = tokenizer::ByteAlphabet::get();
  for (int byte = 0; byte < 256; ++byte) vocab.set(alphabet.character(static_cast<uint8_t>(byte)), byte);
  int64_t next = 256;
  for (const char* token : {"he", "ll", "hell", "hello", "Ġhello"}) vocab.set(token, next++);
  Json json = parse(R"({
    "added_tokens": [{"id": 261, "content": "<|end|>", "special": true, "normalized": false}],
    "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "merges": ["h e", "l l", "he ll", "hell o", "Ġ hello"]}})");
  Json model = json.at("model");
  model.set("vocab", vocab);
  json.set("model", model);
  return json;
}

/// Bytes <0x00>.. are ids 3 to 258, then "▁", "a", "b", "ab", "▁ab".
inline Json sentence_piece() {
  Json vocab = parse(R"({"<unk>": 0, "<s>": 1, "</s>": 2})");
  for (int byte = 0; byte < 256; ++byte) vocab.set(fmt::format("<0x{:02X}>", byte), byte + 3);
  int64_t next = 259;
  for (const char* token : {"▁", "a", "b", "ab", "▁ab"}) vocab.set(token, next++);
  Json json = parse(R"({
    "added_tokens": [{"id": 1, "content": "<s>", "special": true, "normalized": false},
                     {"id": 2, "content": "</s>", "special": true, "normalized": false}],
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": null,
    "post_processor": {"type": "TemplateProcessing", "pair": [], "special_tokens": {},
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>",
              "merges": [["a", "b"], ["▁", "ab"]]}})");
  Json model = json.at("model");
  model.set("vocab", vocab);
  json.set("model", model);
  return json;
}

/// A word-level tokenizer whose vocabulary is `words`, with these other parts.
inline Json words(const std::vector<std::string>& words, const std::string& parts = "{}") {
  Json json = parse(parts), vocab = Json::object();
  for (size_t i = 0; i < words.size(); ++i) vocab.set(words[i], static_cast<int64_t>(i));
  Json model = parse(R"({"type": "WordLevel", "unk_token": "?"})");
  model.set("vocab", vocab);
  json.set("model", model);
  return json;
}

inline std::string message_of(const Json& json, const std::string& config = "") {
  try {
    load(json, config);
  } catch (const UserError& error) {
    const size_t name = error.where().rfind('/');
    return error.where().substr(name == std::string::npos ? 0 : name + 1) + ": " + error.message();
  }
  return "no error";
}

inline Json without(const Json& json, const std::string& key) {
  Json::Object members;
  for (const auto& member : json.members())
    if (member.first != key) members.push_back(member);
  return Json(members);
}

inline Json with_model(Json json, const std::string& key, Json value) {
  Json model = json.at("model");
  model.set(key, std::move(value));
  json.set("model", std::move(model));
  return json;
}

}  // namespace tessera::test
