#include "core/field_values.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/error.h"
#include "core/field_text.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

bool number_allowed(const Rule& rule, double value) {
  return std::isfinite(value) && value <= rule.max && (rule.above_min ? value > rule.min : value >= rule.min);
}

bool text_allowed(const Rule& rule, const std::string& value) {
  const auto& choices = rule.choices;
  return choices.empty() || std::find(choices.begin(), choices.end(), value) != choices.end();
}

/// Whether a text is a number that TOML's are too small for: only those are read as texts.
bool is_typed_number(const TomlValue& given) {
  const auto* text = given.as<std::string>();
  return text && text->find_first_not_of("+-.0123456789eE_") == std::string::npos &&
         text->find_first_of("0123456789") != std::string::npos;
}

/// Whether a shell would put something else in the place of this path's beginning: "~/models", "$HOME/models".
bool is_for_a_shell(const std::string& path) { return !path.empty() && (path.front() == '~' || path.front() == '$'); }

std::optional<double> as_number(const TomlValue& given) {
  if (const auto* integer = given.as<int64_t>()) return static_cast<double>(*integer);
  if (const auto* number = given.as<double>()) return *number;
  return std::nullopt;
}

/// One text stands for a list of it.
std::optional<std::vector<std::string>> as_texts(const TomlValue& given) {
  if (const auto* text = given.as<std::string>()) return std::vector{*text};
  const auto* items = given.as<TomlValue::Array>();
  if (!items) return std::nullopt;
  std::vector<std::string> texts;
  for (const TomlValue& item : *items) {
    if (!item.as<std::string>()) return std::nullopt;
    texts.push_back(*item.as<std::string>());
  }
  return texts;
}

/// Sets a target of any kind. @return false, with nothing set, when the value is of another kind or not allowed
struct Setter {
  const TomlValue& given;
  const Rule& rule;
  const fs::path& folder;

  bool operator()(bool* v) const {
    const auto* truth = given.as<bool>();
    if (truth) *v = *truth;
    return truth;
  }
  bool operator()(int64_t* v) const {
    const auto* integer = given.as<int64_t>();
    if (!integer || !number_allowed(rule, static_cast<double>(*integer))) return false;
    *v = *integer;
    return true;
  }
  bool operator()(double* v) const {
    const auto number = as_number(given);
    if (!number || !number_allowed(rule, *number)) return false;
    *v = *number;
    return true;
  }
  bool operator()(std::string* v) const {
    const auto* text = given.as<std::string>();
    if (!text || !text_allowed(rule, *text)) return false;
    *v = *text;
    return true;
  }
  bool operator()(fs::path* v) const {
    const auto* text = given.as<std::string>();
    if (!text) return false;
    *v = text->empty() ? fs::path() : (folder / *text).lexically_normal();
    std::error_code ignored;
    if (rule.elsewhere && !text->empty() && !fs::exists(*v, ignored))
      if (const fs::path other = rule.elsewhere(*text); !other.empty()) *v = other;
    return true;
  }
  bool operator()(std::vector<std::string>* v) const {
    auto texts = as_texts(given);
    const auto allowed = [&](const std::string& text) { return text_allowed(rule, text); };
    if (!texts || !std::all_of(texts->begin(), texts->end(), allowed)) return false;
    *v = std::move(*texts);
    return true;
  }
  template <class T> bool operator()(std::optional<T>* v) const {
    T value = 0;
    if (!(*this)(&value)) return false;
    *v = value;
    return true;
  }
};

/// What is wrong with a value that was not taken.
std::string refusal(const Field& field, const TomlValue& given, const GivenAt& at, const std::string& found) {
  std::string allowed = allowed_text(field.rule);
  if (is_typed_number(given) && !std::isfinite(field.rule.max)) allowed += largest_text(field.target);
  const auto* text = given.as<std::string>();
  const bool only_choice = text && !field.rule.choices.empty();  // the kind is right, the text is not
  std::string fault = fmt::format("{}: {} is {}, expected {}", at.place, at.key, found,
                                  only_choice ? allowed : std::string(wanted_kind(field.target)));
  if (!only_choice && !allowed.empty()) fault += "\n  allowed: " + allowed;
  if (const auto near = nearest_name(text ? *text : "", field.rule.choices); !near.empty())
    fault += fmt::format("\n  did you mean \"{}\"?", near);
  return fault;
}

/// As TOML spells a text.
std::string spelled(const std::string& text) {
  return text.find('\'') == std::string::npos ? "'" + text + "'" : quoted(text);
}

/// "a,b" or "[a, b]" as a list of texts.
TomlValue bare_list(std::string text) {
  if (text.size() >= 2 && text.front() == '[' && text.back() == ']') text = text.substr(1, text.size() - 2);
  TomlValue::Array items;
  std::string list;
  std::istringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) {
    const size_t begin = item.find_first_not_of(' '), end = item.find_last_not_of(' ');
    if (begin == std::string::npos) continue;
    const std::string inner = item.substr(begin, end - begin + 1);
    list += (items.empty() ? " " : ", ") + spelled(inner);
    items.push_back({inner, spelled(inner), {}, {}});
  }
  return {items, items.empty() ? "[]" : "[" + list + " ]", {}, {}};
}

}  // namespace

std::string set_field(const Field& field, const TomlValue& given, const GivenAt& at) {
  const auto* text = given.as<std::string>();
  const std::string found = text ? quoted(*text) : given.text;
  if (std::holds_alternative<fs::path*>(field.target) && text && is_for_a_shell(*text))
    return UserError(at.place, fmt::format("{} is {}: \"~\" and \"$\" are not expanded here", at.key, found),
                     "write the whole path; a folder of that very name is \"./~\"")
        .what();
  return std::visit(Setter{given, field.rule, at.folder}, field.target) ? "" : refusal(field, given, at, found);
}

TomlValue fitted_override(const FieldTarget& target, const TomlValue& value, const std::string& typed) {
  const bool wants_text = std::holds_alternative<std::string*>(target) || std::holds_alternative<fs::path*>(target);
  const bool wants_list = std::holds_alternative<std::vector<std::string>*>(target);
  const auto* text = value.as<std::string>();
  if (wants_text && !text) return {typed, typed, {}, {}};
  if (wants_list && text && *text == typed) return bare_list(typed);
  return value;
}

}  // namespace tessera
