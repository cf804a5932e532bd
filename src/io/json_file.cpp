#include "io/json_file.h"

#include <unordered_set>

#include "io/files.h"

namespace tessera {
namespace {

void refuse_keys_twice(const Json& json, const std::string& where) {
  if (json.is_array())
    for (const Json& item : json.items()) refuse_keys_twice(item, where);
  if (!json.is_object()) return;
  // The parser keeps all members, so that a key's second place is still there to be found.
  std::unordered_set<std::string_view> seen;
  for (const auto& [key, value] : json.members()) {
    if (!seen.insert(key).second)
      throw UserError(where, fmt::format("the key \"{}\" appears twice in one object", key),
                      "keep the one that is meant");
    refuse_keys_twice(value, where);
  }
}

}  // namespace

Json parse_configuration(std::string_view text, const std::string& where) {
  Json json = Json::parse(text, where);
  refuse_keys_twice(json, where);
  return json;
}

Json read_configuration(const std::filesystem::path& file) {
  return parse_configuration(read_text_file(file), file.string());
}

}  // namespace tessera
