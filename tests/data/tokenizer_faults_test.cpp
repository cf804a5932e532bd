// Tokenizer files that are damaged, not supported or no files: what is said.

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "core/error.h"
#include "core/random.h"
#include "data/made_tokenizers.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace test;

TEST(TokenizerFaults, SaysWhatItDoesNotSupport) {
  const auto with = [](const std::string& part, const std::string& value) {
    Json json = byte_level();
    json.set(part, parse(value));
    return message_of(json);
  };
  EXPECT_EQ(with("normalizer", R"({"type": "Precompiled"})"),
            "tokenizer.json: normalizer: the normalizer \"Precompiled\" is not supported");
  EXPECT_EQ(with("pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [{"type": "UnicodeScripts"}]})"),
            "tokenizer.json: pre_tokenizer: the pre_tokenizer \"UnicodeScripts\" is not supported");
  EXPECT_EQ(with("decoder", R"({"type": "CTC"})"), "tokenizer.json: decoder: the decoder \"CTC\" is not supported");
  EXPECT_EQ(with("post_processor", R"({"type": "BertProcessing"})"),
            "tokenizer.json: post_processor: the post_processor \"BertProcessing\" is not supported");
  EXPECT_EQ(with("model", R"({"type": "Unigram", "vocab": {}})"),
            "tokenizer.json: model: the model \"Unigram\" is not supported");
  EXPECT_EQ(with("pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "[a&&[b]]"}, "behavior": "Isolated"})"),
            "tokenizer.json: pre_tokenizer: the regular expression \"[a&&[b]]\" has a set inside of a set, which is "
            "not supported");
  EXPECT_EQ(message_of(with_model(byte_level(), "dropout", 0.1)),
            "tokenizer.json: model: a BPE model with \"dropout\" is not supported: its ids would be random");
  EXPECT_EQ(message_of(with_model(byte_level(), "end_of_word_suffix", "</w>")),
            "tokenizer.json: model: a BPE model with \"end_of_word_suffix\" is not supported");
}

TEST(TokenizerFaults, SaysWhatIsWrongWithAFile) {
  const auto merges = [](const std::string& list) {
    return message_of(with_model(byte_level(), "merges", parse(list)));
  };
  EXPECT_EQ(
      merges(R"(["h e", "he y"])"),
      "tokenizer.json: model: merge 1 (\"he\" and \"y\") names the token \"hey\", which is not in the vocabulary");
  EXPECT_EQ(merges(R"(["h e l"])"),
            "tokenizer.json: model: merge 0 is \"h e l\", expected two tokens with a space between");
  EXPECT_EQ(merges(R"([["h"]])"), "tokenizer.json: model: merge 0 has 1 tokens, expected 2");
  EXPECT_EQ(merges(R"([3])"), "tokenizer.json: model: expected an array, found a number");
  EXPECT_EQ(message_of(with_model(byte_level(), "unk_token", "<unk>")),
            "tokenizer.json: model: \"unk_token\" names the token \"<unk>\", which is not in the vocabulary");
  const auto vocab = [](const std::string& table) {
    return message_of(with_model(words({"?"}), "vocab", parse(table)));
  };
  EXPECT_EQ(vocab(R"({"a": 0, "b": 0})"), "tokenizer.json: model: the id 0 is given to two tokens, \"a\" and \"b\"");
  EXPECT_EQ(vocab(R"({"a": -1})"), "tokenizer.json: model: the token \"a\" has the id -1, expected 0 to 4194304");
  EXPECT_EQ(vocab(R"({"a": 1e3})"), "tokenizer.json: model: expected an integer, found a number");
  EXPECT_EQ(vocab(R"(["a"])"), "tokenizer.json: model: expected an object, found an array");
  EXPECT_EQ(message_of(without(byte_level(), "model")), "tokenizer.json: model: the key \"model\" is missing");
  EXPECT_EQ(
      message_of(byte_level(), R"({"eos_token": "<eos>"})"),
      "tokenizer_config.json: special tokens: \"eos_token\" names the token \"<eos>\", which is not in the vocabulary");
  Json json = byte_level();
  json.set("added_tokens", parse(R"([{"id": 5, "content": "hello"}])"));
  EXPECT_EQ(message_of(json), "tokenizer.json: added_tokens: the id 5 is given to two tokens, \"ą\" and \"hello\"");
}

TEST(TokenizerFaults, AFolderWithoutATokenizerSaysSo) {
  const TemporaryFolder folder;
  try {
    Tokenizer::load(folder.path());
    FAIL();
  } catch (const UserError& error) {
    EXPECT_EQ(error.message(), "there is no tokenizer.json");
  }
}

TEST(TokenizerFaults, ALinkThatLeadsNowhereIsNoMissingFile) {
  const TemporaryFolder folder;
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"}) {
    test::write_file(folder / "tokenizer.json", byte_level().dump());
    fs::remove(folder / name);
    fs::create_symlink("../../blobs/4d7a", folder / name);
    try {
      Tokenizer::load(folder.path());
      FAIL();
    } catch (const UserError& error) {
      EXPECT_EQ(error.where(), (folder / name).string());
      EXPECT_EQ(error.message(), "is a link to \"../../blobs/4d7a\", which is not there");
    }
    fs::remove(folder / name);
  }
}

/// Loads whatever the text is: only a UserError may come out, and what loads must encode.
void load_and_use(const std::string& text) {
  const TemporaryFolder folder;
  test::write_file(folder / "tokenizer.json", text);
  try {
    const Tokenizer tokenizer = Tokenizer::load(folder.path());
    for (const auto mode : {Tokenizer::Special::parse, Tokenizer::Special::plain}) {
      const Ids ids = tokenizer.encode("hello  é ab<s> <|end|>1\n", mode);
      tokenizer.decode(ids, mode == Tokenizer::Special::parse);
    }
  } catch (const UserError& error) {
    EXPECT_FALSE(error.message().empty());
  }
}

TEST(TokenizerFaults, DamagedFilesGiveUserErrorsOnly) {
  for (const Json& json : {byte_level(), sentence_piece()}) {
    const std::string text = json.dump();
    for (size_t length = 0; length < text.size(); length += 53) load_and_use(text.substr(0, length));
    for (uint64_t seed = 0; seed < 600; ++seed) {
      std::string damaged = text;
      // The vocabulary is most of the text; the interesting parts are at both ends.
      for (uint64_t i = 0, n = 1 + seed % 3; i < n; ++i) {
        const uint64_t at = draw_below(seed, 3 * i, 900);
        const size_t place = at < 450 ? at : text.size() - 1 - (at - 450);
        damaged[place] = R"({}[]",:0129-ntae\)"[draw_below(seed, 3 * i + 1, 17)];
      }
      load_and_use(damaged);
    }
  }
}

TEST(TokenizerFaults, WrongKindsGiveUserErrorsOnly) {
  const std::vector<Json> odd = {Json(), true, -3, int64_t{1} << 40, 0.5, "x", Json::array(), Json::object()};
  for (const Json& json : {byte_level(), sentence_piece()}) {
    const std::function<void(const Json&, const std::function<std::string(const Json&)>&)> visit =
        [&](const Json& node, const std::function<std::string(const Json&)>& whole) {
          for (const Json& value : odd) load_and_use(whole(value));
          if (node.is_object() && node.members().size() < 50) {
            for (const auto& [key, child] : node.members()) {
              visit(child, [&, key = key](const Json& value) {
                Json copy = node;
                return whole(copy.set(key, value));
              });
            }
          }
          if (node.is_array()) {
            for (size_t i = 0; i < node.items().size(); ++i) {
              visit(node.items()[i], [&, i](const Json& value) {
                Json::Array copy = node.items();
                copy[i] = value;
                return whole(Json(copy));
              });
            }
          }
        };
    visit(json, [](const Json& value) { return value.dump(); });
  }
}

TEST(TokenizerFaults, ReplacementsThatWouldTakeAllMemoryAreGivenUp) {
  std::string list;
  for (int i = 0; i < 40; ++i)
    list += std::string(i ? "," : "") + R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})";
  const auto fault = [](const std::function<void()>& run) {
    try {
      run();
    } catch (const UserError& error) {
      return std::string(error.message());
    }
    return std::string();
  };
  Json json = byte_level();
  json.set("normalizer", parse(R"({"type": "Sequence", "normalizers": [)" + list + "]}"));
  const Tokenizer doubling = load(json);
  EXPECT_EQ(doubling.encode("bc"), (Ids{'b', 'c'}));
  EXPECT_EQ(fault([&] { doubling.encode("a"); }),
            "the tokenizer would replace \"a\" and make 33554432 bytes of text, at most 16777224 are allowed");
  Json decoding = byte_level();
  decoding.set("decoder", parse(R"({"type": "Sequence", "decoders": [)" + list + "]}"));
  EXPECT_NE(fault([&] { load(decoding).decode(Ids{'a'}); }).find("the tokenizer would replace \"a\""),
            std::string::npos);
}

TEST(TokenizerFaults, WhatIsNoFileIsNamed) {
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}) {
    const TemporaryFolder folder;
    test::write_file(folder / "tokenizer.json", byte_level().dump());
    fs::remove(folder / name);
    fs::create_directory(folder / name);
    try {
      Tokenizer::load(folder.path());
      FAIL() << name;
    } catch (const UserError& error) {
      EXPECT_EQ(std::string(error.what()), (folder / name).string() + ": cannot be opened: Is a directory");
    }
  }
}

TEST(TokenizerFaults, AKeyTwiceIsRefused) {
  const TemporaryFolder folder;
  test::write_file(folder / "tokenizer.json", byte_level().dump());
  test::write_file(folder / "tokenizer_config.json", R"({"add_bos_token": true, "add_bos_token": false})");
  try {
    Tokenizer::load(folder.path());
    FAIL() << "accepted";
  } catch (const UserError& error) {
    EXPECT_EQ(error.message(), "the key \"add_bos_token\" appears twice in one object");
  }
}

}  // namespace
}  // namespace tessera
