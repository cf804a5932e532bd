#include "core/json.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace tessera {
namespace {

using Ordered = nlohmann::ordered_json;

/// Builds Json values from parse events; a stack of open containers.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(std::string where, bool is_one_line) : where_(std::move(where)), is_one_line_(is_one_line) {}
  Json take() { return std::move(root_); }

  bool null() override { return add(Json()); }
  bool boolean(bool value) override { return add(Json(value)); }
  bool number_integer(int64_t value) override { return add(Json(value)); }
  bool number_unsigned(uint64_t value) override {
    if (value > static_cast<uint64_t>(INT64_MAX)) return add(Json(static_cast<double>(value)));
    return add(Json(static_cast<int64_t>(value)));
  }
  bool number_float(double value, const std::string&) override { return add(Json(value)); }
  bool string(std::string& value) override { return add(Json(std::move(value))); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool key(std::string& name) override {
    keys_.back() = std::move(name);
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ..": of a text of one line, which
    // may be a line of a file that is named with its own number, the byte tells the place.
    std::string what = error.what();
    if (const size_t begin = what.find("parse error"); begin != std::string::npos) {
      const size_t reason = what.find(": ", begin);
      what = what.substr(is_one_line_ && reason != std::string::npos ? reason + 2 : begin);
    }
    throw UserError(where_, fmt::format("not valid JSON at byte {}: {}", position, what));
  }

 private:
  static constexpr size_t kMaxDepth = 512;
  bool open(Json container) {
    if (stack_.size() >= kMaxDepth) throw UserError(where_, "JSON nested deeper than 512 levels");
    stack_.push_back(std::move(container));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    Json done = std::move(stack_.back());
    stack_.pop_back();
    keys_.pop_back();
    return add(std::move(done));
  }
  bool add(Json value) {
    if (stack_.empty())
      root_ = std::move(value);
    else if (stack_.back().is_array())
      stack_.back().push_back(std::move(value));
    else
      const_cast<Json::Object&>(stack_.back().members()).emplace_back(std::move(keys_.back()), std::move(value));
    return true;
  }

  std::string where_;
  bool is_one_line_;
  Json root_;
  std::vector<Json> stack_;
  std::vector<std::string> keys_;
};

const char* kind_of(const Json& json) {
  if (json.is_null()) return "null";
  if (json.is_bool()) return "a boolean";
  if (json.is_number()) return "a number";
  if (json.is_string()) return "a string";
  return json.is_array() ? "an array" : "an object";
}

[[noreturn]] void wrong_kind(const char* wanted, const Json& found) {
  throw UserError("", fmt::format("expected {}, found {}", wanted, kind_of(found)));
}

Ordered to_ordered(const Json& json) {
  if (json.is_bool()) return json.as_bool();
  if (json.is_integer()) return json.as_integer();
  if (json.is_number()) return json.as_number();
  if (json.is_string()) return json.as_string();
  if (json.is_array()) {
    Ordered array = Ordered::array();
    for (const Json& item : json.items()) array.push_back(to_ordered(item));
    return array;
  }
  if (json.is_object()) {
    // Appended, and not by key: each key would be looked for among those before it, and there may be thousands.
    Ordered::object_t object;
    object.reserve(json.members().size());
    for (const auto& [key, value] : json.members()) object.emplace_back(key, to_ordered(value));
    return object;
  }
  return nullptr;
}

}  // namespace

Json::Json() noexcept = default;
Json::Json(const Json&) = default;
Json::Json(Json&&) noexcept = default;
Json& Json::operator=(const Json&) = default;
Json& Json::operator=(Json&&) noexcept = default;
Json::~Json() = default;

Json::Json(bool value) : value_(value) {}
Json::Json(int value) : value_(int64_t{value}) {}
Json::Json(int64_t value) : value_(value) {}
Json::Json(double value) : value_(value) {}
Json::Json(const char* value) : value_(std::string(value)) {}
Json::Json(std::string value) : value_(std::move(value)) {}
Json::Json(std::string_view value) : value_(std::string(value)) {}
Json::Json(Array value) : value_(std::move(value)) {}
Json::Json(Object value) : value_(std::move(value)) {}

Json Json::parse(std::string_view text, const std::string& where) {
  Builder builder(where, text.find('\n') == std::string_view::npos);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

bool Json::as_bool() const {
  if (!is_bool()) wrong_kind("a boolean", *this);
  return std::get<bool>(value_);
}
int64_t Json::as_integer() const {
  if (!is_integer()) wrong_kind("an integer", *this);
  return std::get<int64_t>(value_);
}
double Json::as_number() const {
  if (is_integer()) return static_cast<double>(std::get<int64_t>(value_));
  if (!is_number()) wrong_kind("a number", *this);
  return std::get<double>(value_);
}
const std::string& Json::as_string() const {
  if (!is_string()) wrong_kind("a string", *this);
  return std::get<std::string>(value_);
}
const Json::Array& Json::items() const {
  if (!is_array()) wrong_kind("an array", *this);
  return std::get<Array>(value_);
}
const Json::Object& Json::members() const {
  if (!is_object()) wrong_kind("an object", *this);
  return std::get<Object>(value_);
}

const Json* Json::find(std::string_view key) const {
  if (!is_object()) return nullptr;
  const Object& all = members();
  for (auto member = all.rbegin(); member != all.rend(); ++member)  // of a key that appears twice, the last
    if (member->first == key) return member->second.is_null() ? nullptr : &member->second;
  return nullptr;
}

const Json& Json::at(std::string_view key) const {
  const Json* value = find(key);
  if (!value) throw UserError("", fmt::format("the key \"{}\" is missing", key));
  return *value;
}

Json& Json::set(std::string key, Json value) {
  if (is_null()) value_ = Object{};
  if (!is_object()) wrong_kind("an object", *this);
  for (auto& [name, old] : std::get<Object>(value_))
    if (name == key) {
      old = std::move(value);
      return *this;
    }
  std::get<Object>(value_).emplace_back(std::move(key), std::move(value));
  return *this;
}

Json& Json::push_back(Json value) {
  if (is_null()) value_ = Array{};
  if (!is_array()) wrong_kind("an array", *this);
  std::get<Array>(value_).push_back(std::move(value));
  return *this;
}

std::string Json::dump(int indent) const {
  return to_ordered(*this).dump(indent, ' ', false, Ordered::error_handler_t::replace);
}

}  // namespace tessera
