#pragma once
// Prepared data: the tokens of all documents of one source in one HDF5 file, made once and cached by content hash.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/data_config.h"
#include "data/tokenizer.h"

namespace tessera {

/// All documents of one split. Document d is tokens [ends[d-1], ends[d]), BOS and EOS included as the tokenizer's config
/// says; scored[i] is 1 when token i counts in the loss as a target (only completions of prompt+completion data; everything but
/// the document's first token otherwise; EOS counts).
struct TokenData {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> scored;
  std::vector<int64_t> ends;
  std::string hash;                // of the content and of how it was made: ranks compare it
  int64_t documents() const { return static_cast<int64_t>(ends.size()); }
};

enum class Split { train, eval };

/// Reads the cached token file of the split, or prepares it first (`notice` gets one line when it does).
/// The cache key covers the source's bytes, the tokenizer's fingerprint and every [data] key that matters. A damaged cache
/// file is made again. Layout: docs/token_file.md.
/// @throws UserError naming file and line: not UTF-8, no JSON, a missing or mistyped member, an empty file, a document without scored tokens is skipped and counted
TokenData load_split(const DataConfig&, const Tokenizer&, Split, std::string* notice = nullptr);

/// The records of the split as text, for generation: prompt and completion after templates (a text document has an empty prompt).
struct TextExample {
  std::string prompt, completion;
};
std::vector<TextExample> load_examples(const DataConfig&, Split, int64_t limit);

}  // namespace tessera
