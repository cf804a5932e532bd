#pragma once
// JSON values. Parsing is nlohmann-json's, which only json.cpp includes (its header is slow to compile).

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace tessera {

class Json {
 public:
  // What is made, copied and ended of a variant that holds itself is long: json.cpp alone compiles it.
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  // keeps the order of the file

  Json() noexcept;  // null
  Json(const Json&);
  Json(Json&&) noexcept;
  Json& operator=(const Json&);
  Json& operator=(Json&&) noexcept;
  ~Json();
  Json(bool value);
  Json(int value);
  Json(int64_t value);
  Json(double value);
  Json(const char* value);
  Json(std::string value);
  Json(std::string_view value);
  Json(Array value);
  Json(Object value);
  static Json object() { return Json(Object{}); }
  static Json array() { return Json(Array{}); }

  /// Parses one JSON document. @param where names the source in errors ("config.json", "data.jsonl:12").
  /// @throws UserError with the position of the fault
  static Json parse(std::string_view text, const std::string& where);

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(value_); }
  bool is_number() const { return is_integer() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  // Typed access; throws UserError("expected a string, found a number") on another type.
  bool as_bool() const;
  int64_t as_integer() const;
  double as_number() const;
  const std::string& as_string() const;
  const Array& items() const;
  const Object& members() const;

  /// Member of an object, or nullptr when this is no object, the key is absent or its value is null.
  const Json* find(std::string_view key) const;
  /// Member of an object; throws UserError naming the key when it is absent.
  const Json& at(std::string_view key) const;
  /// Adds or replaces a member; a null value becomes an object, as `push_back` makes it an array.
  Json& set(std::string key, Json value);
  Json& push_back(Json value);

  /// @param indent  spaces a level, or -1 for one line. Doubles print shortest-exact; NaN and infinities print as null.
  std::string dump(int indent = -1) const;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

}  // namespace tessera
