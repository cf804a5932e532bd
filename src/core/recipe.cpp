#include "core/recipe.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/field_text.h"
#include "core/field_values.h"
#include "core/stored_file.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

const TomlValue* find_section(const TomlTable& root, const std::string& section) {
  const size_t dot = section.rfind('.');
  return dot == std::string::npos ? find_value(root, "", section)
                                  : find_value(root, section.substr(0, dot), section.substr(dot + 1));
}

/// Whether something else than a table of keys stands where a section belongs, as [[train]] or train = 3. No key of it
/// is read then, and check_names tells why: what rules miss of the section follows from that.
bool is_misshapen(const TomlTable& root, const std::string& section) {
  for (size_t end = 0; end != std::string::npos && !section.empty();) {
    end = section.find('.', end + 1);
    const TomlValue* found = find_section(root, section.substr(0, end));
    if (found && !found->as<TomlTable>()) return true;
  }
  return false;
}

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::optional<double> number_of(const FieldTarget& target) {
  if (const auto* number = std::get_if<double*>(&target)) return **number;
  const auto* optional = std::get_if<std::optional<double>*>(&target);
  return optional ? **optional : std::nullopt;
}

/// "[a]", or "[[a.b]]" of "a.b[1]".
std::string header_of(const std::string& section) {
  return section.ends_with("]") ? fmt::format("[[{}]]", section.substr(0, section.rfind('[')))
                                : fmt::format("[{}]", section);
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
  if (!section.empty() && !section.ends_with("]")) sections_.push_back(section);
  for (const Field& field : fields.list) {
    fields_.push_back({section, field, value_text(field.target)});
    set_given(fields_.back());
    require_f32(fields_.back());
  }
}

std::string Recipe::element(const std::string& section, size_t index) { return fmt::format("{}[{}]", section, index); }

size_t Recipe::begin_list(const std::string& section, const Fields& fields, std::shared_ptr<const void> blank) {
  const TomlValue* given = find_section(table_, section);
  const auto* tables = given ? given->as<TomlValue::Array>() : nullptr;
  const size_t count = tables ? tables->size() : 0;
  sections_.push_back(section);
  lists_[section] = {count, std::move(blank)};
  for (const Field& field : fields.list) fields_.push_back({section + "[]", field, value_text(field.target)});
  return count;
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

/// Faults of values that are in their keys' ranges and that arithmetic in f32 turns into 0 or infinity.
void Recipe::require_f32(const ReadField& read) {
  constexpr auto kLeast = static_cast<double>(std::numeric_limits<float>::min()),
                 kMost = static_cast<double>(std::numeric_limits<float>::max());
  const auto number = read.field.rule.in_f32 ? number_of(read.field.target) : std::nullopt;
  if (!number || *number == 0 || (std::abs(*number) >= kLeast && std::abs(*number) <= kMost)) return;
  fault(read.section, read.field.key, fmt::format("{} is {}, beyond the range of f32", read.full_key(), *number),
        fmt::format("it is reckoned with in f32, which goes from {} to {}", static_cast<float>(kLeast),
                    static_cast<float>(kMost)));
}

bool Recipe::has(const std::string& section, const std::string& key) const {
  return find_value(overrides_.values, section, key) || find_value(table_, section, key);
}

std::set<std::string> Recipe::given_keys(const std::string& section) const {
  std::set<std::string> keys;
  for (const TomlTable* table : {&table_, &overrides_.values}) {
    const TomlValue* found = find_section(*table, section);
    const auto* members = found ? found->as<TomlTable>() : nullptr;
    if (members)
      for (const auto& [name, value] : *members) keys.insert(name);
  }
  return keys;
}

std::string Recipe::where(const std::string& section, const std::string& key) const {
  if (find_value(overrides_.values, section, key))
    return "command line: " + (section.empty() ? key : section + "." + key);
  const TomlValue* found = find_value(table_, section, key);
  if (!found && !section.empty()) found = find_section(table_, section);
  return found ? place_of(found->key_place) : file_;
}

std::set<std::string> Recipe::said(const std::string& section) const {
  std::set<std::string> keys;
  for (const ReadField& read : fields_)
    if (read.section == section && value_text(read.field.target) != read.default_text) keys.insert(read.field.key);
  return keys;
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
  if (is_misshapen(table_, section) || is_misshapen(overrides_.values, section)) return;
  faults_.push_back(UserError(where(section, key), what, hint).what());
}

/// A folder that was given by a relative path is one from the working directory.
void Recipe::tell_as_typed(const ReadField& read) const {
  fs::path& path = *std::get<fs::path*>(read.field.target);
  if (!path.empty() && !path.has_filename()) path = path.parent_path();  // "runs/a/" is "runs/a"
  const fs::path typed = given_text(read.section, read.field.key);
  const bool is_typed_here = where(read.section, read.field.key).starts_with("command line");
  if (typed.empty() || typed.is_absolute() || (!is_typed_here && folder_.is_absolute())) return;
  const auto relative = path.lexically_proximate(fs::current_path());
  if (relative.filename() != "." && relative.filename() != "..") path = relative;
}

void Recipe::finish() {
  check_names(table_, "", false);
  check_names(overrides_.values, "", true);
  if (faults_.empty()) {
    for (const ReadField& read : fields_)
      if (read.field.rule.as_typed) tell_as_typed(read);
    return;
  }
  std::string all;
  for (size_t i = 0; i < faults_.size(); ++i) all += (i ? "\n" : "") + faults_[i];
  throw UserError("", all);
}

const std::string& Recipe::name() const { return name_; }
const fs::path& Recipe::folder() const { return folder_; }

std::string Recipe::resolved(const std::vector<std::string>& except) const {
  std::string text, open;
  for (const ReadField& read : fields_) {
    if (read.is_blank()) continue;
    if (read.section != open) text += fmt::format("\n{}\n", header_of(open = read.section));
    if (holds(except, read.full_key())) continue;
    if (const std::string value = portable_text(read.field.target); !value.empty())
      text += fmt::format("{} = {}\n", read.field.key, value);
  }
  return text;
}

std::vector<std::pair<std::string, std::string>> Recipe::flat() const {
  std::vector<std::pair<std::string, std::string>> values;
  for (const ReadField& read : fields_)
    if (!read.is_blank()) values.emplace_back(read.full_key(), value_text(read.field.target));
  for (const auto& [section, list] : lists_) values.emplace_back(section, fmt::format("{} tables", list.count));
  return values;
}

OnResume Recipe::on_resume(const std::string& full_key) const {
  const auto is_it = [&](const ReadField& read) { return read.full_key() == full_key; };
  const auto found = std::find_if(fields_.begin(), fields_.end(), is_it);
  return found == fields_.end() ? OnResume::same : found->field.on_resume;
}

std::vector<std::pair<std::string, std::string>> Recipe::explain() const {
  std::vector<std::pair<std::string, std::string>> texts;
  for (const ReadField& read : fields_) {
    if (read.section.ends_with("]") && !read.is_blank()) continue;
    std::string text = read.field.help;
    text += fmt::format("\n  kind: {}", wanted_kind(read.field.target));
    if (const std::string allowed = allowed_text(read.field.rule); !allowed.empty()) text += "\n  allowed: " + allowed;
    text += "\n  default: " + (read.default_text.empty() ? "not set" : read.default_text);
    texts.emplace_back(read.full_key(), text);
  }
  return texts;
}

}  // namespace tessera
