#include "score/metrics/metric.h"

namespace tessera {

Metric token_metric();
Metric completion_metric();
Metric choice_metric();

const std::vector<Metric>& metrics() {
  static const std::vector<Metric> all = {
      token_metric(),
      completion_metric(),
      choice_metric(),
  };
  return all;
}

const std::vector<SumSpec>& sum_specs() {
  static const std::vector<SumSpec> all = [] {
    std::vector<SumSpec> specs;
    for (const Metric& metric : metrics()) specs.insert(specs.end(), metric.sums.begin(), metric.sums.end());
    return specs;
  }();
  return all;
}

}  // namespace tessera
