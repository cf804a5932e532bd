#include "score/loss_sums.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "score/metrics/metric.h"

namespace tessera {
namespace {

size_t place_of(std::string_view name) {
  const auto& specs = sum_specs();
  const auto spec = std::find_if(specs.begin(), specs.end(), [&](const SumSpec& s) { return s.name == name; });
  TS_CHECK(spec != specs.end(), "no metric keeps a sum \"{}\"", name);
  return static_cast<size_t>(spec - specs.begin());
}

}  // namespace

LossSums::LossSums() : values_(sum_specs().size()) {}

double& LossSums::operator[](std::string_view name) { return values_[place_of(name)]; }
double LossSums::operator[](std::string_view name) const { return values_[place_of(name)]; }

Json to_json(const LossSums& sums) {
  Json json = Json::object();
  for (const SumSpec& spec : sum_specs()) {
    const double value = sums[spec.name];
    // A count is exact as an integer; one that is not known has no integer and is written as null.
    const bool is_whole = spec.kind == SumKind::count && std::isfinite(value);
    json.set(std::string(spec.name), is_whole ? Json(static_cast<int64_t>(value)) : Json(value));
  }
  return json;
}

LossSums loss_sums_of(const Json& json) {
  LossSums sums;
  for (const SumSpec& spec : sum_specs()) {
    const Json* kept = json.find(spec.name);
    sums[spec.name] = kept ? kept->as_number() : std::numeric_limits<double>::quiet_NaN();
  }
  return sums;
}

}  // namespace tessera
