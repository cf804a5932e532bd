#include "core/recipe.h"

#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/field_text.h"
#include "core/field_values.h"
#include "core/stored_file.h"

namespace tessera {
namespace fs = std::filesystem;
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

std::string why_unreadable(const fs::file_status& status) {
  if (!fs::exists(status)) return "does not exist";
  return fs::is_directory(status) ? "is a folder" : "cannot be read";
}

}  // namespace

Recipe Recipe::load(const fs::path& file, const std::vector<std::string>& overrides) {
  std::error_code fault;
  const fs::file_status status = fs::status(file, fault);
  if (const std::string what = fault_of_file(file); !what.empty())  // opening a pipe would wait
    throw UserError(file.string(), "this recipe " + what,
                    "write it to a file, and name that: it is read by every rank");
  std::ifstream stream(file, std::ios::binary);
  if (!stream || fs::is_directory(status))
    throw UserError(file.string(), fmt::format("this recipe {}", why_unreadable(status)),
                    fs::exists(file / "recipe.toml")
                        ? fmt::format("of the run in this folder: {}", (file / "recipe.toml").string())
                        : "the first argument of trainer is the path of a TOML file");
  std::stringstream text;
  text << stream.rdbuf();
  if (text.view().starts_with("version https://git-lfs.github.com/spec/"))
    throw UserError(file.string(), "is a git-lfs pointer: the recipe itself was not fetched",
                    "run \"git lfs pull\" in its repository, or download the file");
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  return from_text(text.str(), file.string(), overrides, folder);
}

Recipe Recipe::from_text(const std::string& toml, const std::string& name, const std::vector<std::string>& overrides,
                         const fs::path& folder) {
  Recipe recipe;
  recipe.file_ = name;
  recipe.name_ = fs::path(name).stem().string();
  recipe.folder_ = folder;
  recipe.table_ = parse_toml(toml, name);
  recipe.overrides_ = read_overrides(overrides);
  return recipe;
}

std::string Recipe::place_of(const TomlPlace& place) const {
  return fmt::format("{}:{}:{}", file_, place.line, place.column);
}

void Recipe::read_fields(const std::string& section, const Fields& fields) {
  if (!section.empty()) sections_.push_back(section);
  for (const Field& field : fields.list) {
    fields_.push_back({section, field, value_text(field.target)});
    set_given(fields_.back());
  }
}

void Recipe::set_given(const ReadField& read) {
  const Field& field = read.field;
  std::string fault;
  if (const TomlValue* value = find_value(overrides_.values, read.section, field.key)) {
    const TomlValue* typed = find_value(overrides_.typed, read.section, field.key);
    const auto* text = typed ? typed->as<std::string>() : nullptr;  // none: a section of the key's name
    fault = set_field(field, text ? fitted_override(field.target, *value, *text) : *value,
                      {read.full_key(), "command line", fs::current_path()});
  } else if (const TomlValue* given = find_value(table_, read.section, field.key)) {
    fault = set_field(field, *given, {read.full_key(), place_of(given->place), fs::absolute(folder_)});
  }
  if (!fault.empty()) faults_.push_back(fault);
}

bool Recipe::has(const std::string& section, const std::string& key) const {
  return find_value(overrides_.values, section, key) || find_value(table_, section, key);
}

std::string Recipe::where(const std::string& section, const std::string& key) const {
  if (find_value(overrides_.values, section, key))
    return "command line: " + (section.empty() ? key : section + "." + key);
  const TomlValue* found = find_value(table_, section, key);
  if (!found && !section.empty()) found = find_value(table_, "", section);
  return found ? place_of(found->key_place) : file_;
}

KeyPlaces Recipe::places(const std::string& section) const {
  std::map<std::string, std::string> given;
  for (const std::string& key : known_keys(section))
    if (has(section, key)) given[key] = where(section, key);
  return {where(section, ""), std::move(given)};
}

std::string Recipe::given_text(const std::string& section, const std::string& key) const {
  for (const TomlTable* table : {&overrides_.values, &overrides_.typed, &table_})
    if (const TomlValue* value = find_value(*table, section, key))
      if (const auto* text = value->as<std::string>()) return *text;
  return "";
}

void Recipe::fault(const std::string& section, const std::string& key, const std::string& what,
                   const std::string& hint) {
  faults_.push_back(UserError(where(section, key), what, hint).what());
}

void Recipe::finish() {
  check_names(table_, false);
  check_names(overrides_.values, true);
  if (faults_.empty()) return;
  std::string all;
  for (size_t i = 0; i < faults_.size(); ++i) all += (i ? "\n" : "") + faults_[i];
  throw UserError("", all);
}

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

void Recipe::check_names(const TomlTable& root, bool from_override) {
  const std::vector<std::string> known = known_keys("");
  for (const auto& [name, value] : root) {
    const std::string at = given_place(value.key_place, name, from_override);
    const auto* members = value.as<TomlTable>();
    const bool is_section = holds(sections_, name);
    if (members && is_section)
      check_keys(*members, name, from_override);
    else if (members)
      faults_.push_back(unknown_name(at, "section", name, "", sections_));
    else if (is_section)
      faults_.push_back(
          fmt::format("{}: {} is a section, expected a table of keys\n  write {}.KEY=VALUE, or {}={{KEY=VALUE}} "
                      "with each key once",
                      at, name, name, name));
    else if (!holds(known, name))
      faults_.push_back(unknown_name(at, "key", name, "", known) + section_hint(name));
  }
}

void Recipe::check_keys(const TomlTable& given, const std::string& section, bool from_override) {
  const std::vector<std::string> known = known_keys(section);
  for (const auto& [name, value] : given)
    if (!holds(known, name))
      faults_.push_back(
          unknown_name(given_place(value.key_place, section + "." + name, from_override), "key", name, section, known));
}

const std::string& Recipe::name() const { return name_; }
const fs::path& Recipe::folder() const { return folder_; }

std::string Recipe::resolved(const std::vector<std::string>& except) const {
  std::string text, open;
  for (const ReadField& read : fields_) {
    if (read.section != open) text += fmt::format("\n[{}]\n", open = read.section);
    if (holds(except, read.full_key())) continue;
    if (const std::string value = portable_text(read.field.target); !value.empty())
      text += fmt::format("{} = {}\n", read.field.key, value);
  }
  return text;
}

std::vector<std::pair<std::string, std::string>> Recipe::flat() const {
  std::vector<std::pair<std::string, std::string>> values;
  for (const ReadField& read : fields_) values.emplace_back(read.full_key(), value_text(read.field.target));
  return values;
}

std::vector<std::pair<std::string, std::string>> Recipe::explain() const {
  std::vector<std::pair<std::string, std::string>> texts;
  for (const ReadField& read : fields_) {
    std::string text = read.field.help;
    text += fmt::format("\n  kind: {}", wanted_kind(read.field.target));
    if (const std::string allowed = allowed_text(read.field.rule); !allowed.empty()) text += "\n  allowed: " + allowed;
    text += "\n  default: " + (read.default_text.empty() ? "not set" : read.default_text);
    texts.emplace_back(read.full_key(), text);
  }
  return texts;
}

}  // namespace tessera
