#pragma once
// TOML as plain values. Parsing is toml++'s, which only toml.cpp includes (its header is slow to compile).

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace tessera {

struct TomlPlace {
  uint32_t line = 0, column = 0;
};

struct TomlValue {
  using Array = std::vector<TomlValue>;
  using Table = std::map<std::string, TomlValue>;

  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Table> value;  // monostate: a date or a time
  std::string text;                                                                      // as TOML spells it
  TomlPlace place, key_place;

  template <class T> const T* as() const { return std::get_if<T>(&value); }
  /// Its text, when it is one, as it is meant; else as TOML spells it.
  const std::string& plain_text() const { return as<std::string>() ? *as<std::string>() : text; }
};
using TomlTable = TomlValue::Table;

/// A value of [section] ("" = top level, "a.b" = b in a, "a.b[1]" = the second of [[a.b]]);
/// nullptr when it is not there.
const TomlValue* find_value(const TomlTable&, const std::string& section, const std::string& key);

/// @param name  of the file, for errors
/// @throws UserError with the position of the fault
TomlTable parse_toml(const std::string& text, const std::string& name);

}  // namespace tessera
