#pragma once
// Prepared data: the tokens of all documents of one source in one HDF5 file, made once and cached by content hash.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/rules.h"
#include "data/data_config.h"
#include "data/jsonl.h"
#include "data/tokenizer.h"

namespace tessera {

/// All documents of one split. Document d is tokens [ends[d-1], ends[d]), BOS and EOS included as the tokenizer's config
/// says; scored[i] is 1 when token i counts in the loss as a target (only completions of prompt+completion data; everything but
/// the document's first token otherwise; EOS counts).
/// With data.label_words each record is an example of several documents, its prompt with each of the words: document e · choices + c is choice c of
/// example e, whose right one is answers[e].
struct TokenData {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> scored;
  std::vector<int64_t> ends;
  std::vector<uint8_t> has_prompt{};  // [documents] 1: begins with a prompt; empty: when its second token is not scored
  std::string hash;                   // of the content and of how it was made: ranks compare it
  int64_t choices = 0;                // documents an example; 0: documents stand alone
  std::vector<int32_t> answers;       // [examples], empty without choices
  int64_t documents() const { return static_cast<int64_t>(ends.size()); }
};

/// The right choice of each example, as documents that stand alone: what training by the tokens' likelihood reads. Data without choices stays as it is.
TokenData answers_only(TokenData);

enum class Split { train, eval };

/// Reads the cached token file of the split, or prepares it first (`notice` gets one line when it does).
/// The cache key covers the source's bytes, the tokenizer's fingerprint and every [data] key that matters. A damaged cache
/// file is made again. Safe when several ranks call it at once (the file appears whole, or is made twice). Layout: docs/token_file.md.
/// Documents without scored tokens are skipped and counted in the notice, as are examples of choices whose prompt has no token.
/// @throws Stopped between two batches of documents when a stop was asked for; nothing is kept then
/// @throws UserError naming file and line: not UTF-8, no JSON, a missing or mistyped member, an empty file; a split with no document;
///         label words that are no tokens, or the same tokens
/// @param rules  of the run that reads: one of the first rules goes on with the tokens that it began with, where their file is
///               still there
TokenData load_split(const DataConfig&, const Tokenizer&, Split, std::string* notice = nullptr, Rules = kNewestRules);

/// The split's first documents (at most `documents`, of a text file its first megabyte), prepared and not cached: what shows early that
/// the data cannot be read as [data] says. @param whole  set to whether that is all of the split
/// @throws UserError as load_split
TokenData load_sample(const DataConfig&, const Tokenizer&, Split, int64_t documents, bool& whole);

/// The documents of the split as text, for generation: prompt and completion after templates, in the file's order.
/// @param limit  how many at most; 0: all
std::vector<TextExample> load_examples(const DataConfig&, Split, int64_t limit);

/// The path of the split's token file, which need not exist yet. Reads and hashes the source.
std::filesystem::path token_file_path(const DataConfig&, const Tokenizer&, Split);

/// Whether the document is in the held-out part: a function of its text alone, so copies of a document never part.
bool is_held_out(const TextExample&, double eval_fraction);

/// A document as tokens: [BOS] prompt completion [EOS]. The prompt is encoded alone, so that generation starts from the very
/// tokens that training read. The completion is encoded as what follows a line break, which then is cut off: SentencePiece-style
/// tokenizers put a space in front of a text's beginning only. Special tokens are parsed when a template is used; otherwise all text is plain.
/// Where a template's text begins with BOS (ends with EOS) that the tokenizer adds as well, it is there once.
struct EncodedExample {
  std::vector<int32_t> tokens;
  int64_t prompt_tokens;    // BOS included; tokens behind them are scored (but never the first token)
  bool has_prompt = false;  // prompt_tokens are more than BOS
};
EncodedExample encode_example(const Tokenizer&, const DataConfig&, const TextExample&);

/// The documents of a record: the example, or with data.label_words its prompt with each of the words.
std::vector<EncodedExample> encode_documents(const Tokenizer&, const DataConfig&, const TextExample&);

/// What deserves a word about how texts become tokens: Tokenizer::notice, and a template that spells a token which the
/// tokenizer adds by itself.
std::vector<std::string> reading_notices(const Tokenizer&, const DataConfig&);

/// The first `prompt_tokens` tokens of encode_example: what generation starts from.
std::vector<int32_t> encode_prompt(const Tokenizer&, const DataConfig&, const std::string& prompt);

}  // namespace tessera
