#include "train/estimator.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {

Estimators::Estimators() {
  // All are made, in the list's order: each reads its section of the recipe, so that a key of one that is not used is
  // known too.
  for (const EstimatorKind& kind : estimator_kinds()) all_.push_back(kind.make());
}
Estimators::Estimators(Estimators&&) noexcept = default;
Estimators& Estimators::operator=(Estimators&&) noexcept = default;
Estimators::~Estimators() = default;

const Estimator& Estimators::named(std::string_view name) const {
  const auto& kinds = estimator_kinds();
  const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const EstimatorKind& k) { return k.name == name; });
  TS_CHECK(kind != kinds.end(), "estimator \"{}\" passed the recipe's check", name);
  return *all_[static_cast<size_t>(kind - kinds.begin())];
}

const Estimator& estimator_of(const TrainerConfig& config) { return config.estimators.named(config.train.estimator); }

std::vector<std::string> estimator_names() {
  std::vector<std::string> names;
  for (const EstimatorKind& kind : estimator_kinds()) names.emplace_back(kind.name);
  return names;
}

std::string estimator_help() {
  std::string text;
  for (const EstimatorKind& kind : estimator_kinds())
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", kind.name, kind.help);
  return text;
}

}  // namespace tessera
