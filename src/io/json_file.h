#pragma once
// JSON files that configure something: config.json, tokenizer.json, adapter.json, an index, a description.

#include <filesystem>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/json.h"

namespace tessera {

/// One JSON document that configures something. A key twice in one object says two things, and programs differ in which
/// they take: it is refused. (Records of data are read by Json::parse, where the last counts.)
/// @throws UserError naming `where`: no JSON, or the key that appears twice
Json parse_configuration(std::string_view text, const std::string& where);

/// The same of a file. @throws UserError naming the file, also when it cannot be read
Json read_configuration(const std::filesystem::path& file);

/// Runs `work`, which reads a file that this program wrote. Its UserErrors that name no place get the file, and those
/// that tell no way to mend get this one.
template <class Work>
auto with_mend(const std::filesystem::path& file, const std::string& how_to_mend, const Work& work) {
  try {
    return work();
  } catch (const UserError& error) {
    if (!error.where().empty() && !error.hint().empty()) throw;
    throw UserError(error.where().empty() ? file.string() : error.where(), error.message(),
                    error.hint().empty() ? how_to_mend : error.hint());
  }
}

}  // namespace tessera
