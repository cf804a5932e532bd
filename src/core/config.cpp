#include "core/config.h"

#include <toml++/toml.h>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "core/error.h"

namespace tessera {
namespace fs = std::filesystem;

Rule anything() { return {}; }
Rule in_range(double min, double max) {
  Rule rule;
  rule.min = min;
  rule.max = max;
  return rule;
}
Rule at_least(double min) { return in_range(min, std::numeric_limits<double>::infinity()); }
Rule above(double min, double max) {
  Rule rule = in_range(min, max);
  rule.above_min = true;
  return rule;
}
Rule one_of(std::vector<std::string> choices) {
  Rule rule;
  rule.choices = std::move(choices);
  return rule;
}

namespace {

struct ReadField {
  std::string section;
  Field field;
  std::string default_text;
};

/// Shortest text that reads back as the same double and as a TOML float.
std::string number_text(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      (out += '\\') += c;
    else if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out + "\"";
}

/// The value as TOML; empty for an absent optional.
std::string value_text(const FieldTarget& target) {
  struct Printer {
    std::string operator()(const bool* v) const { return *v ? "true" : "false"; }
    std::string operator()(const int64_t* v) const { return std::to_string(*v); }
    std::string operator()(const double* v) const { return number_text(*v); }
    std::string operator()(const std::string* v) const { return quoted(*v); }
    std::string operator()(const fs::path* v) const { return quoted(v->string()); }
    std::string operator()(const std::vector<std::string>* v) const {
      std::string text = "[";
      for (size_t i = 0; i < v->size(); ++i) text += (i ? ", " : "") + quoted((*v)[i]);
      return text + "]";
    }
    std::string operator()(const std::optional<int64_t>* v) const { return *v ? std::to_string(**v) : ""; }
    std::string operator()(const std::optional<double>* v) const { return *v ? number_text(**v) : ""; }
  };
  return std::visit(Printer{}, target);
}

/// The value as it is to stand in another folder's recipe: paths are absolute.
std::string portable_text(const FieldTarget& target) {
  const auto* path = std::get_if<fs::path*>(&target);
  if (!path || (*path)->empty()) return value_text(target);
  const fs::path absolute = fs::absolute(**path).lexically_normal();
  return value_text(const_cast<fs::path*>(&absolute));
}

const char* wanted_kind(const FieldTarget& target) {
  constexpr const char* kKinds[] = {"true or false",    "a whole number",  "a number",       "text in quotes",
                                    "a path in quotes", "a list of texts", "a whole number", "a number"};
  return kKinds[target.index()];
}

std::string allowed_text(const Rule& rule) {
  if (!rule.choices.empty()) {
    std::string text = "one of:";
    for (const std::string& choice : rule.choices) text += " \"" + choice + "\"";
    return text;
  }
  const bool low = std::isfinite(rule.min), high = std::isfinite(rule.max);
  if (low && high && rule.above_min) return fmt::format("more than {}, at most {}", rule.min, rule.max);
  if (low && high) return fmt::format("{} to {}", rule.min, rule.max);
  if (low) return fmt::format("{} {}", rule.above_min ? "more than" : "at least", rule.min);
  return high ? fmt::format("at most {}", rule.max) : "";
}

bool number_allowed(const Rule& rule, double value) {
  return std::isfinite(value) && value <= rule.max && (rule.above_min ? value > rule.min : value >= rule.min);
}

/// Whether a text is a number that TOML's are too small for: only those are read as texts.
bool is_typed_number(const toml::node& node) {
  const std::string text = node.value_or(std::string());
  return !text.empty() && text.find_first_not_of("+-.0123456789eE_") == std::string::npos &&
         text.find_first_of("0123456789") != std::string::npos;
}

/// Behind "at least 0": where numbers end.
std::string largest_text(const FieldTarget& target) {
  const std::string kind = wanted_kind(target);
  if (kind == "a whole number") return fmt::format(", at most {}", std::numeric_limits<int64_t>::max());
  return kind == "a number" ? fmt::format(", at most {}", std::numeric_limits<double>::max()) : "";
}

/// Whether a shell would put something else in the place of this path's beginning: "~/models", "$HOME/models".
bool is_for_a_shell(const std::string& path) { return !path.empty() && (path.front() == '~' || path.front() == '$'); }

/// "a,b" or "[a, b]" as a list of texts.
toml::array bare_list(std::string text) {
  if (text.size() >= 2 && text.front() == '[' && text.back() == ']') text = text.substr(1, text.size() - 2);
  toml::array items;
  std::istringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) {
    const size_t begin = item.find_first_not_of(' '), end = item.find_last_not_of(' ');
    if (begin != std::string::npos) items.push_back(item.substr(begin, end - begin + 1));
  }
  return items;
}

}  // namespace

struct Recipe::State {
  std::string file, name;
  fs::path folder;
  toml::table table;
  toml::table overrides;       // as TOML
  toml::table override_texts;  // as typed
  std::vector<ReadField> fields;
  std::vector<std::string> sections;
  std::vector<std::string> faults;

  const toml::node* find(const toml::table& root, const std::string& section, const std::string& key) const {
    if (section.empty()) return root.get(key);
    const toml::node* node = root.get(section);
    return node && node->is_table() ? node->as_table()->get(key) : nullptr;
  }
  const toml::key* find_key(const std::string& section, const std::string& key) const {
    const toml::table* scope = &table;
    if (!section.empty()) {
      const toml::node* node = table.get(section);
      if (!node || !node->is_table()) return nullptr;
      scope = node->as_table();
    }
    const auto found = scope->find(key);
    return found == scope->end() ? nullptr : &found->first;
  }
  void assign(const std::string& section, const Field& field, const toml::node& node, bool from_override);
  void assign_override(const std::string& section, const Field& field, const toml::node& node);
  void check_names(const toml::table& root, bool from_override);
  std::vector<std::string> known_keys(const std::string& section) const;
};

void Recipe::State::assign(const std::string& section, const Field& field, const toml::node& node, bool from_override) {
  const std::string full = section.empty() ? field.key : section + "." + field.key;
  const std::string at = from_override
                             ? "command line"
                             : fmt::format("{}:{}:{}", file, node.source().begin.line, node.source().begin.column);
  const auto bad = [&](const std::string& found) {
    std::string allowed = allowed_text(field.rule);
    if (is_typed_number(node) && !std::isfinite(field.rule.max)) allowed += largest_text(field.target);
    const bool only_choice = node.is_string() && !field.rule.choices.empty();  // the kind is right, the text is not
    std::string text = fmt::format("{}: {} is {}, expected {}", at, full, found,
                                   only_choice ? allowed : std::string(wanted_kind(field.target)));
    if (!only_choice && !allowed.empty()) text += "\n  allowed: " + allowed;
    if (const auto near = nearest_name(node.value_or(std::string()), field.rule.choices); !near.empty())
      text += fmt::format("\n  did you mean \"{}\"?", near);
    faults.push_back(text);
  };
  std::ostringstream printed;
  printed << toml::node_view<const toml::node>(node);
  const std::string found = node.is_string() ? quoted(*node.value<std::string>()) : printed.str();
  const auto number = [&]() -> std::optional<double> {
    if (const auto* integer = node.as_integer())
      return static_cast<double>(integer->get());  // value<double>() refuses beyond 2^53
    return node.is_floating_point() ? node.value<double>() : std::nullopt;
  };
  struct Setter {
    const toml::node& node;
    const Rule& rule;
    const fs::path& folder;
    std::optional<double> number;
    bool operator()(bool* v) const {
      if (!node.is_boolean()) return false;
      *v = *node.value<bool>();
      return true;
    }
    bool operator()(int64_t* v) const {
      if (!node.is_integer() || !number_allowed(rule, *number)) return false;
      *v = *node.value<int64_t>();
      return true;
    }
    bool operator()(double* v) const {
      if (!number || !number_allowed(rule, *number)) return false;
      *v = *number;
      return true;
    }
    bool operator()(std::string* v) const {
      if (!node.is_string()) return false;
      const std::string value = *node.value<std::string>();
      if (!rule.choices.empty() && std::find(rule.choices.begin(), rule.choices.end(), value) == rule.choices.end())
        return false;
      *v = value;
      return true;
    }
    bool operator()(fs::path* v) const {
      if (!node.is_string()) return false;
      const std::string value = *node.value<std::string>();
      *v = value.empty() ? fs::path() : (folder / value).lexically_normal();
      return true;
    }
    bool operator()(std::vector<std::string>* v) const {
      std::vector<std::string> items;
      if (node.is_string())
        items.push_back(*node.value<std::string>());
      else if (!node.is_array())
        return false;
      else
        for (const toml::node& item : *node.as_array()) {
          if (!item.is_string()) return false;
          items.push_back(*item.value<std::string>());
        }
      for (const std::string& item : items)
        if (!rule.choices.empty() && std::find(rule.choices.begin(), rule.choices.end(), item) == rule.choices.end())
          return false;
      *v = std::move(items);
      return true;
    }
    bool operator()(std::optional<int64_t>* v) const {
      int64_t value = 0;
      if (!(*this)(&value)) return false;
      *v = value;
      return true;
    }
    bool operator()(std::optional<double>* v) const {
      double value = 0;
      if (!(*this)(&value)) return false;
      *v = value;
      return true;
    }
  };
  const fs::path base = from_override ? fs::current_path() : fs::absolute(folder);
  if (std::holds_alternative<fs::path*>(field.target) && node.is_string() && is_for_a_shell(*node.value<std::string>()))
    faults.push_back(UserError(at, fmt::format("{} is {}: \"~\" and \"$\" are not expanded here", full, found),
                               "write the whole path; a folder of that very name is \"./~\"")
                         .what());
  else if (!std::visit(Setter{node, field.rule, base, number()}, field.target))
    bad(found);
}

/// A shell eats quotes, so a text may be anything that was typed, and a list may be bare: a,b or [a, b].
void Recipe::State::assign_override(const std::string& section, const Field& field, const toml::node& node) {
  const toml::node* typed = find(override_texts, section, field.key);
  if (!typed || !typed->is_string()) return assign(section, field, node, true);  // a section of the key's name
  const bool wants_text =
      std::holds_alternative<std::string*>(field.target) || std::holds_alternative<fs::path*>(field.target);
  const bool wants_list = std::holds_alternative<std::vector<std::string>*>(field.target);
  const std::string text = *typed->value<std::string>();
  if (wants_text && !node.is_string()) return assign(section, field, *typed, true);
  if (wants_list && node.is_string() && node.value<std::string>() == text)
    return assign(section, field, bare_list(text), true);
  assign(section, field, node, true);
}

std::vector<std::string> Recipe::State::known_keys(const std::string& section) const {
  std::vector<std::string> keys;
  for (const ReadField& read : fields)
    if (read.section == section) keys.push_back(read.field.key);
  return keys;
}

void Recipe::State::check_names(const toml::table& root, bool from_override) {
  const auto unknown = [&](const std::string& at, const std::string& key, const std::string& section,
                           const std::vector<std::string>& known) {
    std::string text = fmt::format("{}: unknown {} \"{}\"", at, section == "." ? "section" : "key", key);
    if (section != "." && !section.empty()) text += fmt::format(" in [{}]", section);
    if (!known.empty()) text += section == "." ? "\n  known sections: " : "\n  known keys: ";
    for (size_t i = 0; i < known.size(); ++i) text += (i ? ", " : "") + known[i];
    if (const std::string near = nearest_name(key, known); !near.empty())
      text += fmt::format("\n  did you mean \"{}\"?", near);
    faults.push_back(text);
  };
  const auto at = [&](const toml::key& key, const std::string& full) {
    if (from_override) return "command line: " + full;
    return fmt::format("{}:{}:{}", file, key.source().begin.line, key.source().begin.column);
  };
  for (auto&& [key, node] : root) {
    const std::string name(key.str());
    const bool known_section = std::find(sections.begin(), sections.end(), name) != sections.end();
    if (!node.is_table()) {
      if (known_section) {
        faults.push_back(
            fmt::format("{}: {} is a section, expected a table of keys\n  write {}.KEY=VALUE, or {}={{KEY=VALUE}} "
                        "with each key once",
                        at(key, name), name, name, name));
        continue;
      }
      const auto known = known_keys("");
      if (std::find(known.begin(), known.end(), name) == known.end()) unknown(at(key, name), name, "", known);
      continue;
    }
    if (!known_section) {
      unknown(at(key, name), name, ".", sections);
      continue;
    }
    const auto known = known_keys(name);
    for (auto&& [inner, ignored] : *node.as_table()) {
      const std::string text(inner.str());
      if (std::find(known.begin(), known.end(), text) == known.end())
        unknown(at(inner, name + "." + text), text, name, known);
    }
  }
}

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

/// The value as TOML when it parses as such, otherwise as text.
toml::table parse_value(const std::string& text) {
  try {
    toml::table parsed = toml::parse("v = " + text);
    if (parsed.size() == 1) return parsed;
  } catch (const toml::parse_error&) {
  }
  return toml::table{{"v", text}};
}

/// A value as it would be typed.
std::string typed_text(const toml::node& value) {
  if (value.is_string()) return *value.value<std::string>();
  std::ostringstream text;
  text << toml::node_view<const toml::node>(value);
  return text.str();
}

void add_override(toml::table& table, const Override& given, const toml::node& value) {
  toml::table* scope = &table;
  if (!given.section.empty()) {
    if (!table.get(given.section)) table.insert(given.section, toml::table{});
    scope = table.get(given.section)->as_table();
    if (!scope) throw UserError("command line", fmt::format("\"{}\" is both a key and a section", given.section));
  }
  scope->insert_or_assign(given.key, value);
}

/// Of numbers that TOML's are too small for; the description tells the rest.
std::string hint_of(const toml::parse_error& error) {
  const std::string_view description = error.description();
  if (description.find("not representable in 64 bits") != std::string_view::npos)
    return fmt::format("the largest whole number is {}", std::numeric_limits<int64_t>::max());
  if (description.find("parsing floating-point") != std::string_view::npos)
    return fmt::format("the largest number is {}", std::numeric_limits<double>::max());
  return "";
}

}  // namespace

Recipe::Recipe(std::unique_ptr<State> state) : state_(std::move(state)) {}
Recipe::Recipe(Recipe&&) noexcept = default;
Recipe& Recipe::operator=(Recipe&&) noexcept = default;
Recipe::~Recipe() = default;

Recipe Recipe::load(const fs::path& file, const std::vector<std::string>& overrides) {
  std::error_code fault;
  const fs::file_status status = fs::status(file, fault);
  if (fs::exists(status) && !fs::is_directory(status) && !fs::is_regular_file(status))  // opening a pipe would wait
    throw UserError(file.string(), "this recipe is a pipe or a device and no file",
                    "write it to a file, and name that: it is read by every rank");
  std::ifstream stream(file, std::ios::binary);
  if (!stream || fs::is_directory(status))
    throw UserError(file.string(), "this recipe cannot be read",
                    "the first argument of trainer is the path of a TOML file");
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
  auto state = std::make_unique<State>();
  state->file = name;
  state->name = fs::path(name).stem().string();
  state->folder = folder;
  try {
    state->table = toml::parse(toml, name);
  } catch (const toml::parse_error& error) {
    throw UserError(fmt::format("{}:{}:{}", name, error.source().begin.line, error.source().begin.column),
                    "not valid TOML: " + std::string(error.description()), hint_of(error));
  }
  for (const std::string& text : overrides) {
    const Override given = parse_override(text);
    const toml::table parsed = parse_value(given.text);
    const toml::node& value = *parsed.get("v");
    const auto add = [&](const Override& one, const toml::node& as_toml) {
      add_override(state->overrides, one, as_toml);
      add_override(state->override_texts, one, toml::value<std::string>(one.text));
    };
    if (!given.section.empty() || !value.is_table() || value.as_table()->empty()) {
      add(given, value);
      continue;
    }
    for (auto&& [key, inner] : *value.as_table())  // train={steps=3} is what [train] steps = 3 is
      add({given.key, std::string(key.str()), typed_text(inner)}, inner);
  }
  return Recipe(std::move(state));
}

void Recipe::read_fields(const std::string& section, const Fields& fields) {
  State& s = *state_;
  if (!section.empty()) s.sections.push_back(section);
  for (const Field& field : fields.list) {
    s.fields.push_back({section, field, value_text(field.target)});
    if (const toml::node* node = s.find(s.overrides, section, field.key))
      s.assign_override(section, field, *node);
    else if (const toml::node* given = s.find(s.table, section, field.key))
      s.assign(section, field, *given, false);
  }
}

bool Recipe::has(const std::string& section, const std::string& key) const {
  return state_->find(state_->overrides, section, key) || state_->find(state_->table, section, key);
}

std::string Recipe::where(const std::string& section, const std::string& key) const {
  if (state_->find(state_->overrides, section, key))
    return "command line: " + (section.empty() ? key : section + "." + key);
  const toml::key* found = state_->find_key(section, key);
  if (!found && !section.empty()) found = state_->find_key("", section);
  if (!found) return state_->file;
  return fmt::format("{}:{}:{}", state_->file, found->source().begin.line, found->source().begin.column);
}

void Recipe::fault(const std::string& section, const std::string& key, const std::string& what,
                   const std::string& hint) {
  state_->faults.push_back(UserError(where(section, key), what, hint).what());
}

void Recipe::finish() {
  State& s = *state_;
  s.check_names(s.table, false);
  s.check_names(s.overrides, true);
  if (s.faults.empty()) return;
  std::string all;
  for (size_t i = 0; i < s.faults.size(); ++i) all += (i ? "\n" : "") + s.faults[i];
  throw UserError("", all);
}

const std::string& Recipe::name() const { return state_->name; }
const fs::path& Recipe::folder() const { return state_->folder; }

std::string Recipe::resolved(const std::string& except) const {
  std::string text, open;
  for (const ReadField& read : state_->fields) {
    if (read.section != open) text += fmt::format("\n[{}]\n", open = read.section);
    if (read.section + "." + read.field.key == except) continue;
    if (const std::string value = portable_text(read.field.target); !value.empty())
      text += fmt::format("{} = {}\n", read.field.key, value);
  }
  return text;
}

std::vector<std::pair<std::string, std::string>> Recipe::flat() const {
  std::vector<std::pair<std::string, std::string>> values;
  for (const ReadField& read : state_->fields)
    values.emplace_back(read.section.empty() ? read.field.key : read.section + "." + read.field.key,
                        value_text(read.field.target));
  return values;
}

std::vector<std::pair<std::string, std::string>> Recipe::explain() const {
  std::vector<std::pair<std::string, std::string>> texts;
  for (const ReadField& read : state_->fields) {
    std::string text = read.field.help;
    text += fmt::format("\n  kind: {}", wanted_kind(read.field.target));
    if (const std::string allowed = allowed_text(read.field.rule); !allowed.empty()) text += "\n  allowed: " + allowed;
    text += "\n  default: " + (read.default_text.empty() ? "not set" : read.default_text);
    texts.emplace_back(read.section.empty() ? read.field.key : read.section + "." + read.field.key, text);
  }
  return texts;
}

}  // namespace tessera
