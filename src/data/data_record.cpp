// A parser of JSON gives numbers as values: 1.10 comes out as 1.1, 12345678901234567890 rounded, 1e400 not at all. So
// the numbers of a line are taken out before it is parsed, and their places put in:
//
//   {"price": 1.10, "of": [1e400, 7]}   ->   {"price": 0, "of": [1, 2]}   and   "1.10", "1e400", "7"

#include "data/data_record.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "core/error.h"
#include "data/tokenizer/unicode.h"

namespace tessera {
namespace {

size_t digits(std::string_view text, size_t at) {
  size_t count = 0;
  while (at + count < text.size() && std::isdigit(static_cast<unsigned char>(text[at + count]))) ++count;
  return count;
}

/// -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?
bool is_number(std::string_view text) {
  size_t at = !text.empty() && text[0] == '-' ? 1 : 0;
  const size_t whole = digits(text, at);
  if (whole == 0 || (whole > 1 && text[at] == '0')) return false;
  at += whole;
  if (at < text.size() && text[at] == '.') {
    const size_t fraction = digits(text, at + 1);
    if (fraction == 0) return false;
    at += 1 + fraction;
  }
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    const bool is_signed = at + 1 < text.size() && (text[at + 1] == '+' || text[at + 1] == '-');
    const size_t exponent = digits(text, at + 1 + is_signed);
    if (exponent == 0) return false;
    at += 1 + is_signed + exponent;
  }
  return at == text.size();
}

bool is_of_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '+' || c == '.' || c == '_';
}

/// Bytes of the number, name or fault at the front of `text`.
size_t word_length(std::string_view text) {
  size_t length = 0;
  while (length < text.size() && is_of_word(text[length])) ++length;
  return length;
}

/// Bytes of the string at the front of `text`, which begins with a quote.
size_t string_length(std::string_view text) {
  for (size_t at = 1; at < text.size(); ++at) {
    if (text[at] == '"') return at + 1;
    // A backslash takes the next character along, a quote or another backslash among them.
    if (text[at] == '\\') ++at;
  }
  return text.size();
}

std::string take_numbers(std::string_view line, std::vector<std::string>& numbers) {
  std::string rest;
  rest.reserve(line.size());
  while (!line.empty()) {
    // A string passes as a whole: digits within it are text.
    const size_t length = line[0] == '"' ? string_length(line) : std::max<size_t>(word_length(line), 1);
    const std::string_view part = line.substr(0, length);
    if (is_number(part)) {
      rest += std::to_string(numbers.size());
      numbers.emplace_back(part);
    } else {
      rest += part;
    }
    line.remove_prefix(length);
  }
  return rest;
}

/// An item of an array by its number, a member of an object by its name; nullptr when there is none.
const Json* child(const Json& parent, std::string_view name) {
  if (!parent.is_array()) return parent.find(name);
  // An item of a list is named by digits alone: "0", not "+0" or "0x0".
  size_t index = 0;
  const auto [end, fault] = std::from_chars(name.data(), name.data() + name.size(), index);
  const bool is_index = fault == std::errc() && end == name.data() + name.size() && index < parent.items().size();
  return is_index && !parent.items()[index].is_null() ? &parent.items()[index] : nullptr;
}

/// A member by its name, else by its path.
const Json* find_in(const Json& json, std::string_view path) {
  // Dots may be part of a name: the whole path is first taken for one.
  if (const Json* whole = json.find(path)) return whole;
  const Json* node = &json;
  while (node) {
    const size_t dot = path.find('.');
    node = child(*node, path.substr(0, dot));
    if (dot == std::string_view::npos) return node;
    path.remove_prefix(dot + 1);
  }
  return nullptr;
}

}  // namespace

size_t first_utf8_fault(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const tokenizer::CodePoint point = tokenizer::first_code_point(text.substr(at));
    if (point.value < 0) return at;
    at += static_cast<size_t>(point.length);
  }
  return std::string_view::npos;
}

void require_utf8(std::string_view text, const std::string& where) {
  if (const size_t fault = first_utf8_fault(text); fault != std::string_view::npos)
    throw UserError(where,
                    fmt::format("byte {} is not UTF-8 (0x{:02x})", fault + 1, static_cast<unsigned char>(text[fault])),
                    "convert the file to UTF-8");
}

DataRecord::DataRecord(std::string_view line, std::string where) : line_(line), where_(std::move(where)) {
  require_utf8(line, where_);
  const std::string without_numbers = take_numbers(line, numbers_);
  try {
    json_ = Json::parse(without_numbers, where_);
  } catch (const UserError&) {
    Json::parse(line, where_);  // tells the place in the line as it stands
    throw;
  }
  if (!json_.is_object())
    throw UserError(where_, fmt::format("a record is a JSON object {{...}}, found {:.40}", shown("")));
}

const Json* DataRecord::find(std::string_view path) const { return find_in(json_, path); }

std::vector<std::string> DataRecord::member_names() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : json_.members()) names.push_back(name);
  return names;
}

std::string DataRecord::members_hint() const {
  std::string hint = "members here: ";
  const std::vector<std::string> names = member_names();
  for (size_t i = 0; i < names.size(); ++i) hint += (i ? ", " : "") + names[i];
  return hint;
}

void DataRecord::fail_missing(const std::string& path) const {
  const std::string near = nearest_name(path, member_names());
  const bool is_near = !near.empty() && near != path;
  throw UserError(where_, fmt::format("the member \"{}\" is missing or null", path),
                  members_hint() + (is_near ? fmt::format("\ndid you mean \"{}\"?", near) : ""));
}

/// Part of the line, or with an empty path all of it, for messages.
std::string DataRecord::shown(std::string_view path) const {
  try {
    const Json whole = Json::parse(line_, where_);
    return (path.empty() ? &whole : find_in(whole, path))->dump();
  } catch (const UserError&) {
    return std::string(line_);  // it holds a number that no double does
  }
}

std::string DataRecord::spelling(const Json& value) const {
  // A number here is the place of its spelling.
  return value.is_integer() ? numbers_[static_cast<size_t>(value.as_integer())] : value.dump();
}

const std::string& DataRecord::text(const std::string& path) const {
  const Json* value = find(path);
  if (!value) fail_missing(path);
  if (!value->is_string())
    throw UserError(where_, fmt::format("the member \"{}\" is no text: {:.40}", path, shown(path)),
                    "a template turns numbers into text: data.completion_template = \"{" + path + "}\"");
  return value->as_string();
}

std::string DataRecord::spelled(const std::string& path) const {
  const Json* value = find(path);
  if (!value) fail_missing(path);
  if (value->is_array() || value->is_object())
    throw UserError(
        where_, fmt::format("the member \"{}\" is a list or an object, a template takes text and numbers", path),
        fmt::format("name what is inside it, for example {{{}.{}}}", path, value->is_array() ? "0" : "name"));
  return value->is_string() ? value->as_string() : spelling(*value);
}

}  // namespace tessera
