#pragma once
// Texts to continue, read from a file by the rules of training data.

#include <filesystem>
#include <vector>

#include "data/jsonl.h"

namespace tessera {

/// The prompts of a file: of a JSONL file one a record (JsonlReader::read_prompt),
/// of a text file one a line as it stands.
/// @param limit  how many at most, as is data.max_documents; 0: all
/// @throws UserError naming file and line: not UTF-8, no JSON, a member missing; when the file holds no prompt; for
///         names that say another format, and for records in a file whose name says text
std::vector<TextExample> load_prompts(const std::filesystem::path& file, const DataConfig& config, int64_t limit);

}  // namespace tessera
