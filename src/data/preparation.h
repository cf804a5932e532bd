#pragma once
// Documents of a source become tokens, on the threads that the job has.

#include "data/data_source.h"
#include "data/token_data.h"
#include "data/tokenizer.h"

namespace tessera {

struct PreparedData {
  TokenData data;       // without a hash
  int64_t skipped = 0;  // documents, or examples of choices, with nothing to score
};
/// All documents of a source.
/// @param threads  that encode, at least 1; they do not change the result
/// @throws Stopped between two batches of documents when a stop was asked for
/// @throws UserError as load_split
PreparedData prepare(const DataSource&, const Tokenizer&, const DataConfig&, int threads);

/// The split's first documents (at most `documents`, of a text file its first megabyte), prepared by one thread
/// and not cached: what shows early that the data cannot be read as [data] says.
/// @param whole  set to whether that is all of the split
/// @throws UserError as load_split
TokenData load_sample(const DataConfig&, const Tokenizer&, Split, int64_t documents, bool& whole);

/// Whether a second token that is not scored tells of a prompt, and a scored one of none: then has_prompt need not be
/// kept. With nothing in front of documents a prompt of one token looks like a text's first; several tokens in front
/// of a text look like a prompt.
bool marks_tell_prompts(const TokenData&, const Tokenizer&);

}  // namespace tessera
