#include "core/fields.h"

namespace tessera {

Rule anything() { return {}; }
Rule in_range(double min, double max) {
  Rule rule;
  rule.min = min;
  rule.max = max;
  return rule;
}
Rule at_least(double min) { return in_range(min, std::numeric_limits<double>::infinity()); }
Rule above(double min, double max) {
  Rule rule = in_range(min, max);
  rule.above_min = true;
  return rule;
}
Rule one_of(std::vector<std::string> choices) {
  Rule rule;
  rule.choices = std::move(choices);
  return rule;
}
Rule path_as_typed() {
  Rule rule;
  rule.as_typed = true;
  return rule;
}
Rule path_or(std::filesystem::path (*elsewhere)(const std::string& text)) {
  Rule rule;
  rule.elsewhere = elsewhere;
  return rule;
}
Rule in_f32(Rule rule) {
  rule.in_f32 = true;
  return rule;
}

}  // namespace tessera
