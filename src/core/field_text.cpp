#include "core/field_text.h"

#include <fmt/core.h>

#include <cmath>

#include "core/error.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// Shortest text that reads back as the same double and as a TOML float.
std::string number_text(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

}  // namespace

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

std::string largest_text(const FieldTarget& target) {
  const std::string kind = wanted_kind(target);
  if (kind == "a whole number") return fmt::format(", at most {}", std::numeric_limits<int64_t>::max());
  return kind == "a number" ? fmt::format(", at most {}", std::numeric_limits<double>::max()) : "";
}

}  // namespace tessera
