#include "model/sharing/adapter.h"

#include <cmath>
#include <set>

#include "core/error.h"

namespace tessera {

std::unique_ptr<Adapter> make_adapter(const AdapterConfig& config, const KeyPlaces& where) {
  if (config.method == "none") return nullptr;
  for (const AdapterMethod& method : adapter_methods())
    if (method.name == config.method) return method.make(config, where);
  TS_CHECK(false, "adapter method \"{}\" passed the recipe's check", config.method);
  return nullptr;
}

std::vector<int> match_targets(std::span<const WeightSpec> specs, const std::vector<std::string>& targets,
                               const KeyPlaces& where, const std::string& method) {
  std::set<std::string> types;
  for (const WeightSpec& spec : specs)
    if (spec.role == Role::linear) types.insert(spec.type);
  std::set<std::string> chosen;
  for (const std::string& target : targets) {
    bool found = false;
    for (const std::string& type : types) {
      const bool leaf = type.size() > target.size() &&
                        type.compare(type.size() - target.size(), target.size(), target) == 0 &&
                        type[type.size() - target.size() - 1] == '.';
      if (target == "all" || target == type || leaf) {
        chosen.insert(type);
        found = true;
      }
    }
    if (!found) {
      std::string known;
      for (const std::string& type : types) known += (known.empty() ? "" : ", ") + type;
      throw UserError(where.of("targets"), fmt::format("{}: target '{}' matches none of: {}", method, target, known));
    }
  }
  std::vector<int> numbers;
  for (size_t i = 0; i < specs.size(); ++i)
    if (specs[i].role == Role::linear && chosen.count(specs[i].type)) numbers.push_back(static_cast<int>(i));
  return numbers;
}

float adapter_scale(const AdapterConfig& config, int64_t rank) {
  const auto r = static_cast<double>(rank);
  return static_cast<float>(config.alpha / (config.scale == "rs" ? std::sqrt(r) : r));
}

}  // namespace tessera
