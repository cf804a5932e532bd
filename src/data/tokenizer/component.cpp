#include "data/tokenizer/component.h"

#include "core/error.h"

namespace tessera::tokenizer {

const std::string& type_of(const Json& component) {
  component.members();  // says so when this is no object
  return component.at("type").as_string();
}

void not_supported(std::string_view part, std::string_view type, std::string_view supported) {
  throw UserError("", fmt::format("the {} \"{}\" is not supported", part, type),
                  fmt::format("supported: {}", supported));
}

bool flag_or(const Json& component, std::string_view key, bool otherwise) {
  const Json* value = component.find(key);
  return value ? value->as_bool() : otherwise;
}

std::string text_or(const Json& component, std::string_view key, const std::string& otherwise) {
  const Json* value = component.find(key);
  return value ? value->as_string() : otherwise;
}

Regex read_pattern(const Json& pattern) {
  if (pattern.is_string()) return Regex::literal(pattern.as_string());
  if (const Json* text = pattern.find("String")) return Regex::literal(text->as_string());
  if (const Json* regex = pattern.find("Regex")) return Regex(regex->as_string());
  throw UserError("", "a pattern must be {\"String\": text} or {\"Regex\": pattern}");
}

}  // namespace tessera::tokenizer
