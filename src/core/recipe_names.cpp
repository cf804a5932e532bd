// Which sections and keys a recipe may have: all others are faults, each with the nearest known name.

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "core/recipe.h"

namespace tessera {
namespace {

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// @param what  "key", or "section"
std::string unknown_name(const std::string& at, const std::string& what, const std::string& name,
                         const std::string& section, const std::vector<std::string>& known) {
  std::string text = fmt::format("{}: unknown {} \"{}\"", at, what, name);
  if (!section.empty()) text += fmt::format(" in [{}]", section);
  if (!known.empty()) text += fmt::format("\n  known {}s: ", what);
  for (size_t i = 0; i < known.size(); ++i) text += (i ? ", " : "") + known[i];
  if (const std::string near = nearest_name(name, known); !near.empty())
    text += fmt::format("\n  did you mean \"{}\"?", near);
  return text;
}

bool is_array_of_tables(const TomlValue& value) {
  const auto* items = value.as<TomlValue::Array>();
  const auto is_table = [](const TomlValue& item) { return item.as<TomlTable>() != nullptr; };
  return items && !items->empty() && std::all_of(items->begin(), items->end(), is_table);
}

/// "a.b[3]": the array's name and the number; nothing for other names.
std::optional<std::pair<std::string, size_t>> element_of(const std::string& name) {
  const size_t bracket = name.rfind('[');
  if (bracket == std::string::npos || name.back() != ']') return std::nullopt;
  size_t index = 0;
  const char *begin = name.data() + bracket + 1, *end = name.data() + name.size() - 1;
  const auto [last, fault] = std::from_chars(begin, end, index);
  if (fault != std::errc() || last != end) return std::nullopt;
  return std::pair{name.substr(0, bracket), index};
}

}  // namespace

std::vector<std::string> Recipe::known_keys(const std::string& section) const {
  std::vector<std::string> keys;
  for (const ReadField& read : fields_)
    if (read.section == section) keys.push_back(read.field.key);
  return keys;
}

std::string Recipe::given_place(const TomlPlace& key, const std::string& full_key, bool from_override) const {
  return from_override ? "command line: " + full_key : place_of(key);
}

std::string Recipe::section_hint(const std::string& key) const {
  std::string names;
  for (const ReadField& read : fields_)
    if (read.field.key == key && !read.section.empty()) names += (names.empty() ? "" : " or ") + read.full_key();
  return names.empty() ? "" : fmt::format("\n  did you mean {}?", names);
}

std::vector<std::string> Recipe::sections_in(const std::string& name) const {
  std::vector<std::string> within;
  for (const std::string& section : sections_)
    if (name.empty() || section.starts_with(name + ".")) within.push_back(section);
  return within;
}

void Recipe::check_names(const TomlTable& given, const std::string& section, bool from_override) {
  for (const auto& [name, value] : given) check_name(value, section, name, from_override);
}

void Recipe::check_name(const TomlValue& value, const std::string& section, const std::string& name,
                        bool from_override) {
  const std::string full_name = section.empty() ? name : section + "." + name;
  const std::string at = given_place(value.key_place, full_name, from_override);
  if (check_list(value, full_name, at, from_override)) return;
  const std::vector<std::string> known = known_keys(section);
  const auto* members = value.as<TomlTable>();
  // [""] is a name that nobody has; the recipe's top, which is called so here, is no section of it.
  const bool is_section = !full_name.empty() && (holds(sections_, full_name) || !sections_in(full_name).empty());
  if (members && is_section)
    check_names(*members, full_name, from_override);
  else if (is_section && !from_override && is_array_of_tables(value))
    faults_.push_back(fmt::format("{}: [[{}]] begins one of several tables, and {} is a single one\n  write [{}]", at,
                                  full_name, full_name, full_name));
  else if (is_section)
    faults_.push_back(
        fmt::format("{}: {} is a section, expected a table of keys\n  write {}.KEY=VALUE, or {}={{KEY=VALUE}} "
                    "with each key once",
                    at, full_name, full_name, full_name));
  else if (holds(known, name))
    return;  // what is wrong with its value was told when it was read
  else if (members && (section.empty() || !sections_in(section).empty()))
    faults_.push_back(unknown_name(at, "section", full_name, "", sections_in(section)));
  else
    faults_.push_back(unknown_name(at, "key", name, section, known) + (section.empty() ? section_hint(name) : ""));
}

/// @return whether the name is that of an array of tables, or of one of them on the command line
bool Recipe::check_list(const TomlValue& value, const std::string& full_name, const std::string& at,
                        bool from_override) {
  const auto fault = [&](const std::string& text) { faults_.push_back(at + text); };
  if (const auto list = lists_.find(full_name); list != lists_.end()) {
    const auto* items = value.as<TomlValue::Array>();
    if (from_override)
      fault(fmt::format(
          " is an array of tables, which the recipe holds\n  write {}[0].KEY=VALUE for a key of the first", full_name));
    else if (!items || !(items->empty() || is_array_of_tables(value)))
      fault(fmt::format(": {} is an array of tables\n  write [[{}]] above the keys of each", full_name, full_name));
    else
      for (size_t i = 0; i < items->size(); ++i)
        check_names(*(*items)[i].as<TomlTable>(), element(full_name, i), from_override);
    return true;
  }
  const auto one = from_override ? element_of(full_name) : std::nullopt;
  const auto list = one ? lists_.find(one->first) : lists_.end();
  if (list == lists_.end()) return false;
  if (one->second >= list->second.count)
    fault(fmt::format(": the recipe has {} [[{}]], numbered from 0", list->second.count, list->first));
  else if (const auto* members = value.as<TomlTable>())
    check_names(*members, full_name, from_override);
  else
    fault(fmt::format(" is a table of keys\n  write {}.KEY=VALUE", full_name));
  return true;
}

}  // namespace tessera
