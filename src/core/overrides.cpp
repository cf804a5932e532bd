#include "core/overrides.h"

#include <fmt/core.h>

#include "core/error.h"

namespace tessera {
namespace {

struct Override {
  std::string section, key, text;
};

Override parse_override(const std::string& text) {
  const size_t equals = text.find('=');
  const std::string path = text.substr(0, equals);
  const size_t dot = path.find('.');
  const bool has_section = dot != std::string::npos;
  const std::string section = has_section ? path.substr(0, dot) : "", key = has_section ? path.substr(dot + 1) : path;
  if (equals == std::string::npos || key.empty() || (has_section && section.empty()) ||
      key.find('.') != std::string::npos)
    throw UserError("command line", fmt::format("\"{}\" is not an override", text),
                    "write section.key=value, for example train.steps=100");
  return {section, key, text.substr(equals + 1)};
}

TomlValue text_value(const std::string& text) {
  TomlValue value;
  value.value = value.text = text;
  return value;
}

TomlValue parse_value(const std::string& text) {
  try {
    const TomlTable parsed = parse_toml("v = " + text, "");
    if (parsed.size() == 1) return parsed.at("v");
  } catch (const UserError&) {
  }
  return text_value(text);
}

void insert(TomlTable& table, const Override& given, const TomlValue& value) {
  if (given.section.empty()) {
    table.insert_or_assign(given.key, value);
    return;
  }
  TomlValue& section = table.try_emplace(given.section, TomlValue{TomlTable{}, "", {}, {}}).first->second;
  auto* members = std::get_if<TomlTable>(&section.value);
  if (!members) throw UserError("command line", fmt::format("\"{}\" is both a key and a section", given.section));
  members->insert_or_assign(given.key, value);
  section.text.clear();
  for (const auto& [key, member] : *members)
    section.text += fmt::format("{}{} = {}", section.text.empty() ? "" : "\n", key, member.text);
}

void add(Overrides& overrides, const Override& given, const TomlValue& value) {
  insert(overrides.values, given, value);
  insert(overrides.typed, given, text_value(given.text));
}

}  // namespace

Overrides read_overrides(const std::vector<std::string>& texts) {
  Overrides overrides;
  for (const std::string& text : texts) {
    const Override given = parse_override(text);
    const TomlValue value = parse_value(given.text);
    const auto* members = value.as<TomlTable>();
    if (!given.section.empty() || !members || members->empty()) {
      add(overrides, given, value);
      continue;
    }
    for (const auto& [key, inner] : *members) add(overrides, {given.key, key, inner.plain_text()}, inner);
  }
  return overrides;
}

}  // namespace tessera
