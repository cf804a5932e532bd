#pragma once
// A document as tokens: what stands before, between and behind its parts.

#include <string>
#include <vector>

#include "data/data_config.h"
#include "data/jsonl.h"
#include "data/tokenizer.h"

namespace tessera {

/// A document as tokens: [BOS] prompt completion [EOS]. The prompt is encoded alone, so that generation starts from
/// the very tokens that training read. The completion is encoded as what follows a line break, which then is cut off:
/// SentencePiece-style tokenizers put a space in front of a text's beginning only. Special tokens are parsed when a
/// template is used; otherwise all text is plain. Where a template's text begins with BOS (ends with EOS) that the
/// tokenizer adds as well, it is there once.
struct EncodedExample {
  std::vector<int32_t> tokens;
  int64_t prompt_tokens;    // BOS included; tokens behind them are scored (but never the first token)
  bool has_prompt = false;  // prompt_tokens are more than BOS
};
EncodedExample encode_example(const Tokenizer&, const DataConfig&, const TextExample&);

/// The documents of a record: the example, or with data.label_words its prompt with each of the words.
std::vector<EncodedExample> encode_documents(const Tokenizer&, const DataConfig&, const TextExample&);

/// Choices are told apart by their tokens alone.
/// @throws UserError when a label word is no token, or two are the same tokens
void require_distinct_words(const Tokenizer&, const DataConfig&);

/// What deserves a word about how texts become tokens: Tokenizer::notice, and a template that spells a token which the
/// tokenizer adds by itself.
std::vector<std::string> reading_notices(const Tokenizer&, const DataConfig&);

/// The tokens of a text that stands behind other text: without the space that SentencePiece-style tokenizers put in
/// front of a text's beginning, and without what stands before or behind a document.
std::vector<int32_t> encode_continuation(const Tokenizer&, const std::string& text, Tokenizer::Special);

/// The first `prompt_tokens` tokens of encode_example: what generation starts from.
std::vector<int32_t> encode_prompt(const Tokenizer&, const DataConfig&, const std::string& prompt);

}  // namespace tessera
