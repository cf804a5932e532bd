#pragma once
// Reading a key of config.json: a number within its range, or an error that names file, key and value. A key that
// nobody reads is refused, unless it is known to have no effect on what the model computes.

#include <initializer_list>
#include <string>
#include <string_view>

#include "core/json.h"

namespace tessera {

/// A whole number, 1 to `most`. @throws UserError when it is missing or another
int64_t positive(const Json&, std::string_view key, const std::string& where, int64_t most = int64_t{1} << 31);
int64_t positive_or(const Json&, std::string_view key, int64_t otherwise, const std::string& where);
/// A number above 0 that f32 can hold.
double above_zero_or(const Json&, std::string_view key, double otherwise, const std::string& where);
/// A whole number, 0 and up.
int64_t count_or(const Json&, std::string_view key, int64_t otherwise, const std::string& where);
/// The key is there, and null: where transformers' class gives null another meaning than absence.
bool is_null(const Json&, std::string_view key);
/// "sliding_window", where it is neither missing nor null.
int64_t window_or(const Json&, int64_t otherwise, const std::string& where);
bool flag_or(const Json&, std::string_view key, bool otherwise, const std::string& where);

/// Every key is one that decoder_config.cpp reads, one of `own`, the family's, or known to have no effect on what the
/// model computes; null counts as not there. @throws UserError naming the others
void require_known_keys(const Json&, std::initializer_list<std::string_view> own, const std::string& where);
/// The key is not there, null, or has the only value that is supported.
void require_value(const Json&, std::string_view key, const Json& value, const std::string& where);
/// @throws UserError: the key asks for arithmetic that the program does not have
[[noreturn]] void unsupported(std::string_view key, const Json& value, const std::string& supported,
                              const std::string& where);

}  // namespace tessera
