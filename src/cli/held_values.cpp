#include "cli/held_values.h"

#include <cmath>
#include <limits>
#include <set>

namespace tessera {
namespace {

constexpr float kLeast = std::numeric_limits<float>::min(), kMost = std::numeric_limits<float>::max();

/// Numbers that stay f64 to the end.
bool stays_double(const std::string& key) {
  static const std::set<std::string> keys = {"train.epochs", "optimizer.warmup_ratio", "optimizer.final_ratio",
                                             "spsa.eps"};  // which has a check of its own
  return keys.count(key) > 0;
}

std::optional<double> number_of(const FieldTarget& target) {
  if (const auto* number = std::get_if<double*>(&target)) return **number;
  const auto* optional = std::get_if<std::optional<double>*>(&target);
  return optional ? **optional : std::nullopt;
}

template <class Config> void check_section(Recipe& recipe, const std::string& section, Config& config) {
  Fields fields;
  config.visit(fields);
  for (const Field& field : fields.list) {
    const auto number = number_of(field.target);
    const std::string key = section + "." + field.key;
    if (!number || stays_double(key) || *number == 0) continue;
    if (const double size = std::abs(*number); size < static_cast<double>(kLeast) || size > static_cast<double>(kMost))
      recipe.fault(section, field.key, fmt::format("{} is {}, beyond the range of f32", key, *number),
                   fmt::format("it is reckoned with in f32, which goes from {} to {}", kLeast, kMost));
  }
}

}  // namespace

void check_held_values(Recipe& recipe, JobConfig& c) {
  check_section(recipe, "train", c.trainer.train);
  check_section(recipe, "optimizer", c.trainer.optimizer);
  check_section(recipe, "adapter", c.adapter);
}

}  // namespace tessera
