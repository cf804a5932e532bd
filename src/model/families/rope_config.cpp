#include "model/families/rope_config.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "model/families/config_keys.h"

namespace tessera {
namespace {

constexpr const char *kScaling = "rope_scaling", *kParameters = "rope_parameters";
constexpr const char* kTypes = "rope_type \"default\" or \"llama3\"; rope_theta stays as it is";

/// The numbers of type llama3 that have no default.
constexpr const char* kLlama3[] = {"factor", "low_freq_factor", "high_freq_factor"};
constexpr const char* kOriginal = "original_max_position_embeddings";

void require_llama3_numbers(const Json& table, const std::string& key, const std::string& where) {
  std::string missing;
  for (const char* number : kLlama3)
    if (!table.find(number)) missing += fmt::format("{}\"{}\"", missing.empty() ? "" : ", ", number);
  if (missing.empty()) return;
  throw UserError(where, fmt::format("\"{}\" is of type llama3 and lacks {}", key, missing),
                  "take them from the config.json that the model was published with");
}

void read_llama3(const Json& table, const std::string& key, RopeConfig& rope, const std::string& where) {
  require_llama3_numbers(table, key, where);
  const std::string inside = where + ", " + key;
  rope.factor = above_zero_or(table, "factor", 1, inside);
  rope.low_freq_factor = above_zero_or(table, "low_freq_factor", 1, inside);
  rope.high_freq_factor = above_zero_or(table, "high_freq_factor", 1, inside);
  rope.original_max_position_embeddings = positive_or(table, kOriginal, rope.original_max_position_embeddings, inside);
  if (rope.high_freq_factor <= rope.low_freq_factor)
    throw UserError(where,
                    fmt::format("\"{}\" has low_freq_factor={} and high_freq_factor={}", key, rope.low_freq_factor,
                                rope.high_freq_factor),
                    "high_freq_factor is the greater of the two");
}

/// Newer models have a table for each kind of layer: {"full_attention": {...}, "sliding_attention": {...}}.
void refuse_nested(const Json& table, const std::string& key, const std::string& where) {
  for (const auto& [name, value] : table.members())
    if (value.is_object())
      throw UserError(
          where,
          fmt::format("\"{}\" has a table of its own for \"{}\": rotary positions that differ from layer to "
                      "layer are not supported",
                      key, name),
          "one table for all layers is read");
}

std::string type_of(const Json& table, const std::string& key, const std::string& where) {
  const Json* type = table.find("rope_type");
  if (!type) type = table.find("type");
  if (!type) return "default";
  if (!type->is_string() || (type->as_string() != "default" && type->as_string() != "llama3"))
    unsupported(fmt::format("{}.{}", key, table.find("rope_type") ? "rope_type" : "type"), *type, kTypes, where);
  return type->as_string();
}

void refuse_other_numbers(const Json& table, const std::string& key, bool is_llama3, const std::string& where) {
  for (const auto& [name, value] : table.members()) {
    const bool is_read = name == "rope_type" || name == "type" || name == "rope_theta";
    const bool is_number = is_llama3 && (name == kOriginal || std::ranges::find(kLlama3, name) != std::end(kLlama3));
    const bool is_whole = name == "partial_rotary_factor" && value.is_number() && value.as_number() == 1;
    if (!value.is_null() && !is_read && !is_number && !is_whole)
      unsupported(fmt::format("{}.{}", key, name), value, "a table without it", where);
  }
}

/// @param otherwise  what holds where the table says nothing
RopeConfig read_table(const Json& table, const std::string& key, const RopeConfig& otherwise,
                      const std::string& where) {
  if (!table.is_object())
    throw UserError(where, fmt::format("\"{}\" is {}, expected an object, or null", key, table.dump()));
  refuse_nested(table, key, where);
  const bool is_llama3 = type_of(table, key, where) == "llama3";
  refuse_other_numbers(table, key, is_llama3, where);
  RopeConfig rope = otherwise;
  rope.theta = above_zero_or(table, "rope_theta", otherwise.theta, where + ", " + key);
  if (is_llama3) read_llama3(table, key, rope, where);
  return rope;
}

std::string text_of(const RopeConfig& rope) {
  const std::string theta = fmt::format("rope_theta {}", rope.theta);
  if (rope.factor == 1) return "no scaling and " + theta;
  return fmt::format("llama3 with factor {}, low_freq_factor {}, high_freq_factor {}, {} {} and {}", rope.factor,
                     rope.low_freq_factor, rope.high_freq_factor, kOriginal, rope.original_max_position_embeddings,
                     theta);
}

/// Not there, null and {} are the same.
const Json* table_of(const Json& config, const char* key) {
  const Json* table = config.find(key);
  return table && table->is_object() && table->members().empty() ? nullptr : table;
}

}  // namespace

RopeConfig read_rope(const Json& config, double default_theta, int64_t max_position, const std::string& where) {
  RopeConfig plain;
  plain.theta = above_zero_or(config, "rope_theta", default_theta, where);
  plain.original_max_position_embeddings = max_position;
  const Json *scaling = table_of(config, kScaling), *parameters = table_of(config, kParameters);
  if (!scaling) return parameters ? read_table(*parameters, kParameters, plain, where) : plain;
  const RopeConfig rope = read_table(*scaling, kScaling, plain, where);
  if (!parameters) return rope;
  // transformers 4 does not know rope_parameters, 5 ignores it here, and its theta with it. A file that says two things
  // was edited by hand: which of them was meant, nobody knows.
  const RopeConfig other = read_table(*parameters, kParameters, plain, where);
  if (text_of(rope) != text_of(other))
    throw UserError(
        where,
        fmt::format("\"{}\" and \"{}\" contradict each other: {}; {}", kScaling, kParameters, text_of(rope),
                    text_of(other)),
        fmt::format("remove one of them; transformers reads \"{}\" and ignores the other, with its rope_theta",
                    kScaling));
  return rope;
}

}  // namespace tessera
