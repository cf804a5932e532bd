#include "core/overrides.h"

#include <fmt/core.h>

#include "core/deep_keys.h"
#include "core/error.h"

namespace tessera {
namespace {

struct Override {
  std::vector<std::string> path;  // "train", "steps"
  std::string text;
};

/// The parts between dots; none when one of them is empty, or there are too many.
std::vector<std::string> path_of(const std::string& text) {
  std::vector<std::string> path;
  for (size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
    end = text.find('.', begin);
    path.push_back(text.substr(begin, end - begin));
    if (path.back().empty() || path.size() > kMostNames) return {};
  }
  return path;
}

Override parse_override(const std::string& text) {
  const size_t equals = text.find('=');
  std::vector<std::string> path = path_of(text.substr(0, equals));
  if (equals == std::string::npos || path.empty())
    throw UserError("command line", fmt::format("\"{}\" is not an override", text),
                    "write section.key=value, for example train.steps=100");
  return {std::move(path), text.substr(equals + 1)};
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

/// What TOML would say of a section, or of a table within one.
std::string text_of(const TomlTable& members, size_t depth) {
  std::string text;
  for (const auto& [key, member] : members)
    text += fmt::format("{}{} = {}", text.empty() ? "" : depth == 0 ? "\n" : ", ", key, member.text);
  return depth == 0 ? text : "{ " + text + " }";
}

/// What is given as train.steps=3 and as train.steps.y=3: one of them would be lost.
[[noreturn]] void refuse_both(const std::vector<std::string>& path, size_t names) {
  std::string name = path[0];
  for (size_t i = 1; i < names; ++i) name += "." + path[i];
  throw UserError("command line", fmt::format("\"{}\" is given as a key and as a section", name),
                  fmt::format("leave out {}=..., or every {}.KEY=...", name, name));
}

/// @param depth  of the table: the path's first names lead to it
void insert(TomlTable& table, const std::vector<std::string>& path, const TomlValue& value, size_t depth = 0) {
  if (depth + 1 == path.size()) {
    const auto before = table.find(path[depth]);
    const auto* members = before == table.end() ? nullptr : before->second.as<TomlTable>();
    if (members && !members->empty()) refuse_both(path, path.size());
    table.insert_or_assign(path[depth], value);
    return;
  }
  TomlValue& section = table.try_emplace(path[depth], TomlValue{TomlTable{}, "", {}, {}}).first->second;
  auto* members = std::get_if<TomlTable>(&section.value);
  if (!members) refuse_both(path, depth + 1);
  insert(*members, path, value, depth + 1);
  section.text = text_of(*members, depth);
}

/// A table stands for its members, each as if it had been given for itself.
void add(Overrides& overrides, const Override& given, const TomlValue& value) {
  const auto* members = value.as<TomlTable>();
  if (!members || members->empty()) {
    insert(overrides.values, given.path, value);
    insert(overrides.typed, given.path, text_value(given.text));
    return;
  }
  for (const auto& [key, inner] : *members) {
    Override member{given.path, inner.plain_text()};
    member.path.push_back(key);
    add(overrides, member, inner);
  }
}

}  // namespace

Overrides read_overrides(const std::vector<std::string>& texts) {
  Overrides overrides;
  for (const std::string& text : texts) {
    const Override given = parse_override(text);
    add(overrides, given, parse_value(given.text));
  }
  return overrides;
}

}  // namespace tessera
