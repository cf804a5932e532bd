#pragma once
// Reading a key of config.json: a number within its range, or an error that names file, key and value.

#include <string>
#include <string_view>

#include "core/json.h"

namespace tessera {

/// A whole number, 1 to `most`. @throws UserError when it is missing or another
int64_t positive(const Json&, std::string_view key, const std::string& where, int64_t most = int64_t{1} << 31);
int64_t positive_or(const Json&, std::string_view key, int64_t otherwise, const std::string& where);
/// A number above 0 that f32 can hold.
double above_zero_or(const Json&, std::string_view key, double otherwise, const std::string& where);
/// @throws UserError: the key asks for arithmetic that the program does not have
[[noreturn]] void unsupported(std::string_view key, const Json& value, const std::string& supported,
                              const std::string& where);

}  // namespace tessera
