//   [front] prompt | completion [back]           front and back: what the tokenizer adds, BOS and EOS as a rule
// Prompt and completion are tokenized apart, so that the border of what is scored lies between two tokens, and a prompt
// that is to be continued has the same tokens as one that was trained on.

#include "data/encoding.h"

#include <algorithm>
#include <span>

#include "core/error.h"

namespace tessera {
namespace {

Tokenizer::Special special_mode(const DataConfig& config) {
  return config.has_template() ? Tokenizer::Special::parse : Tokenizer::Special::plain;
}

/// How many tokens at the end of `left` are those at the beginning of `right`.
size_t overlap(std::span<const int32_t> left, std::span<const int32_t> right) {
  // The longest first: of several ways to overlap, the one that repeats most.
  size_t count = std::min(left.size(), right.size());
  while (!std::equal(left.end() - static_cast<ptrdiff_t>(count), left.end(), right.begin())) --count;
  return count;
}

/// Appends `added`. A template may have spelled what the tokenizer adds: what is there from `begin` on is not repeated.
void append_once(std::vector<int32_t>& tokens, size_t begin, std::span<const int32_t> added,
                 Tokenizer::Special special) {
  const bool may_be_there = special == Tokenizer::Special::parse;
  const size_t there = may_be_there ? overlap(std::span<const int32_t>(tokens).subspan(begin), added) : 0;
  tokens.insert(tokens.end(), added.begin() + static_cast<ptrdiff_t>(there), added.end());
}

/// Adds the completion and EOS to an encoded prompt.
void append_completion(const Tokenizer& tokenizer, const DataConfig& config, const std::string& completion,
                       bool has_prompt, std::vector<int32_t>& tokens) {
  const Tokenizer::Special special = special_mode(config);
  const std::vector<int32_t> added =
      has_prompt ? encode_continuation(tokenizer, completion, special) : tokenizer.encode(completion, special);
  const size_t begin = tokens.size();
  // Without a prompt, the completion's template may spell the BOS that is there already; with one, it begins anew.
  append_once(tokens, has_prompt ? begin : 0, added, special);
  append_once(tokens, begin, tokenizer.back(), special);
}

/// The tokens of the text that a template begins (ends) with, before its first (behind its last) member.
std::vector<int32_t> spelled_end(const Tokenizer& tokenizer, const std::string& text, bool front) {
  const RecordTemplate parsed(text, "");
  if (parsed.parts().empty()) return {};
  const RecordTemplate::Part& part = front ? parsed.parts().front() : parsed.parts().back();
  return part.is_member ? std::vector<int32_t>() : tokenizer.encode(part.text, Tokenizer::Special::parse);
}

/// A document that has its prompt only.
EncodedExample encoded_prompt(const Tokenizer& tokenizer, const DataConfig& config, const std::string& prompt) {
  std::vector<int32_t> tokens = encode_prompt(tokenizer, config, prompt);
  const auto count = static_cast<int64_t>(tokens.size());
  // Whatever is behind the tokenizer's own tokens came from a prompt.
  return {std::move(tokens), count, count > static_cast<int64_t>(tokenizer.front().size())};
}

}  // namespace

std::vector<int32_t> encode_continuation(const Tokenizer& tokenizer, const std::string& text,
                                         Tokenizer::Special special) {
  // What the line break alone becomes is what has to be cut off again.
  const std::vector<int32_t> front = tokenizer.encode("\n", special);
  std::vector<int32_t> joined = tokenizer.encode("\n" + text, special);
  const bool is_prefix = front.size() <= joined.size() && std::equal(front.begin(), front.end(), joined.begin());
  // Where the line break merges with the text, the tokenizer is a byte-level one,
  // whose beginnings are like any other place.
  if (!is_prefix) return tokenizer.encode(text, special);
  joined.erase(joined.begin(), joined.begin() + static_cast<ptrdiff_t>(front.size()));
  return joined;
}

std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, const DataConfig& config, const std::string& prompt) {
  std::vector<int32_t> tokens(tokenizer.front().begin(), tokenizer.front().end());
  const std::vector<int32_t> text = tokenizer.encode(prompt, special_mode(config));
  append_once(tokens, 0, text, special_mode(config));
  return tokens;
}

EncodedExample encode_example(const Tokenizer& tokenizer, const DataConfig& config, const TextExample& example) {
  EncodedExample encoded = encoded_prompt(tokenizer, config, example.prompt);
  append_completion(tokenizer, config, example.completion, !example.prompt.empty(), encoded.tokens);
  return encoded;
}

std::vector<EncodedExample> encode_documents(const Tokenizer& tokenizer, const DataConfig& config,
                                             const TextExample& example) {
  if (!config.has_choices()) return {encode_example(tokenizer, config, example)};
  // The prompt is encoded once: all choices share its tokens.
  std::vector<EncodedExample> choices(config.label_words.size(), encoded_prompt(tokenizer, config, example.prompt));
  for (size_t c = 0; c < choices.size(); ++c)
    append_completion(tokenizer, config, config.label_words[c], !example.prompt.empty(), choices[c].tokens);
  return choices;
}

void require_distinct_words(const Tokenizer& tokenizer, const DataConfig& config) {
  std::vector<std::vector<int32_t>> encoded;
  for (const std::string& word : config.label_words) {
    encoded.push_back(encode_continuation(tokenizer, word, special_mode(config)));
    if (encoded.back().empty())
      throw UserError("data.label_words", fmt::format("the label word \"{}\" is no token for this tokenizer", word),
                      "name a word that the model can predict");
    // The word itself is found at the end at the latest: any earlier place is another word with the same tokens.
    const auto first = std::find(encoded.begin(), encoded.end(), encoded.back());
    if (first + 1 != encoded.end())
      throw UserError("data.label_words",
                      fmt::format("the label words \"{}\" and \"{}\" are the same tokens",
                                  config.label_words[static_cast<size_t>(first - encoded.begin())], word),
                      "the tokenizer does not know them, or drops what sets them apart: choose other words");
  }
}

std::vector<std::string> reading_notices(const Tokenizer& tokenizer, const DataConfig& config) {
  std::vector<std::string> notices;
  if (!tokenizer.notice().empty()) notices.push_back(tokenizer.notice());
  const auto say = [&](const char* key, int32_t token) {
    notices.push_back(fmt::format("note: data.{} writes {}, which the tokenizer adds by itself: it is there once", key,
                                  tokenizer.token(token)));
  };
  const bool has_prompt = !config.prompt_template.empty();
  const auto front = spelled_end(tokenizer, has_prompt ? config.prompt_template : config.completion_template, true);
  if (overlap(tokenizer.front(), front) > 0) say(has_prompt ? "prompt_template" : "completion_template", front[0]);
  // The other end: only a completion's template can spell what stands behind a document.
  const auto back = spelled_end(tokenizer, config.completion_template, false);
  if (overlap(back, tokenizer.back()) > 0) say("completion_template", back.back());
  return notices;
}

}  // namespace tessera
