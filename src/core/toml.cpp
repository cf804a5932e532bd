#include "core/toml.h"

#include <fmt/core.h>

#define TOML_MAX_NESTED_VALUES 64  // arrays and inline tables, which find_deep_key does not count
#include <toml++/toml.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <sstream>

#include "core/deep_keys.h"
#include "core/error.h"

namespace tessera {
namespace {

/// Of numbers that TOML's are too small for; the description tells the rest.
std::string hint_of(const toml::parse_error& error) {
  const std::string_view description = error.description();
  if (description.find("not representable in 64 bits") != std::string_view::npos)
    return fmt::format("the largest whole number is {}", std::numeric_limits<int64_t>::max());
  if (description.find("parsing floating-point") != std::string_view::npos)
    return fmt::format("the largest number is {}", std::numeric_limits<double>::max());
  return "";
}

TomlPlace place_of(const toml::source_region& source) { return {source.begin.line, source.begin.column}; }

TomlTable copied_table(const toml::table&);

TomlValue copied(const toml::node& node) {
  TomlValue copy;
  std::ostringstream text;
  text << toml::node_view<const toml::node>(node);
  copy.text = text.str();
  if (const auto* number = node.as_floating_point(); number && std::isfinite(number->get())) {
    copy.text = fmt::format("{}", number->get());  // the shortest that reads back as the same: 0.99 and no more digits
    if (copy.text.find_first_of(".e") == std::string::npos) copy.text += ".0";
  }
  copy.place = place_of(node.source());
  if (const auto* truth = node.as_boolean())
    copy.value = truth->get();
  else if (const auto* integer = node.as_integer())
    copy.value = integer->get();
  else if (const auto* number = node.as_floating_point())
    copy.value = number->get();
  else if (const auto* string = node.as_string())
    copy.value = string->get();
  else if (const auto* table = node.as_table())
    copy.value = copied_table(*table);
  else if (const auto* array = node.as_array())
    for (auto& items = copy.value.emplace<TomlValue::Array>(); const toml::node& item : *array) {
      items.push_back(copied(item));
      items.back().key_place = items.back().place;
    }
  return copy;
}

TomlTable copied_table(const toml::table& table) {
  TomlTable copy;
  for (auto&& [key, node] : table) {
    TomlValue& value = copy[std::string(key.str())] = copied(node);
    value.key_place = place_of(key.source());
  }
  return copy;
}

}  // namespace

namespace {

/// "sources[1]": the second of the tables called "sources".
const TomlValue* find_element(const TomlTable& table, const std::string& name) {
  const size_t bracket = name.find('[');
  if (bracket == std::string::npos || name.back() != ']') return nullptr;
  const auto found = table.find(name.substr(0, bracket));
  const auto* items = found == table.end() ? nullptr : found->second.as<TomlValue::Array>();
  size_t index = 0;
  const char *begin = name.data() + bracket + 1, *end = name.data() + name.size() - 1;
  const auto [last, fault] = std::from_chars(begin, end, index);
  return items && fault == std::errc() && last == end && index < items->size() ? &(*items)[index] : nullptr;
}

}  // namespace

const TomlValue* find_value(const TomlTable& table, const std::string& section, const std::string& key) {
  const std::string& path = section.empty() ? key : section;
  const size_t dot = section.empty() ? std::string::npos : path.find('.');
  const std::string name = path.substr(0, dot);
  const auto found = table.find(name);
  const TomlValue* value = found == table.end() ? find_element(table, name) : &found->second;
  if (!value || section.empty()) return value;
  const auto* inner = value->as<TomlTable>();
  return inner ? find_value(*inner, dot == std::string::npos ? "" : path.substr(dot + 1), key) : nullptr;
}

TomlTable parse_toml(const std::string& text, const std::string& name) {
  if (const auto deep = find_deep_key(text))
    throw UserError(fmt::format("{}:{}:{}", name, deep->line, deep->column),
                    fmt::format("a key here has more than {} names", kMostNames),
                    "a key is section.key, and no section lies that deep");
  try {
    return copied_table(toml::parse(text, name));
  } catch (const toml::parse_error& error) {
    throw UserError(fmt::format("{}:{}:{}", name, error.source().begin.line, error.source().begin.column),
                    "not valid TOML: " + std::string(error.description()), hint_of(error));
  }
}

}  // namespace tessera
