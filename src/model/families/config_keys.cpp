#include "model/families/config_keys.h"

#include <limits>

#include "core/error.h"

namespace tessera {

int64_t positive(const Json& json, std::string_view key, const std::string& where, int64_t most) {
  const Json* value = json.find(key);
  if (!value) throw UserError(where, fmt::format("the key \"{}\" is missing", key));
  if (!value->is_integer() || value->as_integer() <= 0 || value->as_integer() > most)
    throw UserError(where, fmt::format("\"{}\" is {}, expected a whole number, 1 to {}", key, value->dump(), most));
  return value->as_integer();
}

int64_t positive_or(const Json& json, std::string_view key, int64_t otherwise, const std::string& where) {
  return json.find(key) ? positive(json, key, where) : otherwise;
}

double above_zero_or(const Json& json, std::string_view key, double otherwise, const std::string& where) {
  const Json* value = json.find(key);
  if (!value) return otherwise;
  if (!value->is_number() || !(value->as_number() > 0))
    throw UserError(where, fmt::format("\"{}\" is {}, expected a number above 0", key, value->dump()));
  constexpr double kLeast = std::numeric_limits<float>::min(), kMost = std::numeric_limits<float>::max();
  if (value->as_number() < kLeast || value->as_number() > kMost)  // it is computed with in f32
    throw UserError(where, fmt::format("\"{}\" is {}, expected {:.3g} to {:.3g}", key, value->dump(), kLeast, kMost));
  return value->as_number();
}

[[noreturn]] void unsupported(std::string_view key, const Json& value, const std::string& supported,
                              const std::string& where) {
  throw UserError(
      where, fmt::format("\"{}\" is {}: this changes the model's arithmetic and is not supported", key, value.dump()),
      "supported: " + supported);
}

}  // namespace tessera
