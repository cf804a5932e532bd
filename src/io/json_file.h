#pragma once
// JSON files that configure something: config.json, tokenizer.json, adapter.json, an index, a description.

#include <filesystem>
#include <string>
#include <string_view>

#include "core/json.h"

namespace tessera {

/// One JSON document that configures something. A key twice in one object says two things, and programs differ in which
/// they take: it is refused. (Records of data are read by Json::parse, where the last counts.)
/// @throws UserError naming `where`: no JSON, or the key that appears twice
Json parse_configuration(std::string_view text, const std::string& where);

/// The same of a file. @throws UserError naming the file, also when it cannot be read
Json read_configuration(const std::filesystem::path& file);

}  // namespace tessera
