#pragma once
// Prepared data: the tokens of all documents of one source in one HDF5 file, made once and cached by content hash.

#include <filesystem>
#include <string>

#include "core/rules.h"
#include "data/data_source.h"
#include "data/token_data.h"
#include "data/tokenizer.h"

namespace tessera {

/// Reads the cached token file of the split, or prepares it first (`notice` gets one line when it does).
/// The cache key covers the source's bytes, the tokenizer's fingerprint and every [data] key that matters. A damaged
/// cache file is made again. Safe when several ranks call it at once (the file appears whole, or is made twice).
/// Layout: docs/token_file.md. Documents without scored tokens are skipped and counted in the notice, as are examples
/// of choices whose prompt has no token.
/// @throws Stopped between two batches of documents when a stop was asked for; nothing is kept then
/// @throws UserError naming file and line: not UTF-8, no JSON, a missing or mistyped member, an empty file; a split
///         with no document; label words that are no tokens, or the same tokens
/// @param rules  of the run that reads: one of the first rules goes on with the tokens that it began with, where their
///               file is still there
/// @param threads  that prepare, at least 1; the file is the same with any number
TokenData load_split(const DataConfig&, const Tokenizer&, Split, std::string* notice = nullptr, Rules = kNewestRules,
                     int threads = 1);

/// The path of the split's token file, which need not exist yet. Reads and hashes the source.
std::filesystem::path token_file_path(const DataConfig&, const Tokenizer&, Split);

}  // namespace tessera
