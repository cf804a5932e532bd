// Tokens stay in ascending id. A cut finds the last token that stays, in the order of the cut, and drops those behind
// it: the order of a whole vocabulary is never formed.

#include "infer/distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/functions/each.h"
#include "infer/shortlist.h"

namespace tessera {
namespace {

double sum_of(std::span<const double> weights) {
  double sum = 0;
  for (const double w : weights) sum += w;
  return sum;
}

}  // namespace

bool Distribution::assign(std::span<const double> values, const Sampling& sampling) {
  TS_CHECK(sampling.temperature > 0, "a temperature of {}", sampling.temperature);
  collect(values);
  if (ids_.empty()) return false;
  // Before exponentials are formed, of which few are left to form.
  keep_top_k(sampling.top_k);
  weigh(sampling.temperature);
  keep_top_p(sampling.top_p);
  keep_min_p(sampling.min_p);
  keep_typical(sampling.typical_p);
  return true;
}

/// x is the value, until it is weighed.
void Distribution::collect(std::span<const double> values) {
  ids_.resize(values.size());
  x_.resize(values.size());
  weights_.assign(values.size(), 0);
  size_t count = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    ids_[count] = static_cast<int32_t>(i);
    x_[count] = values[i];
    count += values[i] > -std::numeric_limits<double>::infinity();
  }
  ids_.resize(count);
  x_.resize(count);
  weights_.resize(count);
}

void Distribution::weigh(double temperature) {
  const double max = *std::max_element(x_.begin(), x_.end());
  for (double& x : x_) x = (x - max) / temperature;
  functions::exp(x_, weights_.data());
}

/// Drops the tokens at places for which `stays` is false.
template <class Stays> void Distribution::keep(const Stays& stays) {
  size_t count = 0;
  for (size_t i = 0; i < ids_.size(); ++i) {
    if (!stays(i)) continue;
    ids_[count] = ids_[i];
    x_[count] = x_[i];
    weights_[count++] = weights_[i];
  }
  ids_.resize(count);
  x_.resize(count);
  weights_.resize(count);
}

void Distribution::keep_top_k(int64_t k) {
  if (k <= 0 || k >= static_cast<int64_t>(ids_.size())) return;
  Shortlist<Ranked, ComesFirst> heaviest(static_cast<size_t>(k));
  for (size_t i = 0; i < ids_.size(); ++i) heaviest.offer({x_[i], ids_[i]});
  const Ranked last = heaviest.last();
  keep([&](size_t i) { return !ComesFirst()(last, {x_[i], ids_[i]}); });
}

void Distribution::keep_top_p(double share) {
  if (share >= 1) return;
  const Ranked last = fronts_.end(x_, weights_, ids_, share * sum_of(weights_));
  keep([&](size_t i) { return !ComesFirst()(last, {x_[i], ids_[i]}); });
}

void Distribution::keep_min_p(double share) {
  // The heaviest weighs exp(0) = 1.
  if (share > 0) keep([&](size_t i) { return weights_[i] >= share; });
}

void Distribution::keep_typical(double share) {
  if (share >= 1) return;
  const double total = sum_of(weights_);
  double sum = 0;
  // Where exp(x) is 0, x may be −∞.
  for (size_t i = 0; i < ids_.size(); ++i) sum += weights_[i] > 0 ? weights_[i] * x_[i] : 0;
  const double mean = sum / total;
  keys_.resize(ids_.size());
  for (size_t i = 0; i < ids_.size(); ++i) keys_[i] = -std::abs(x_[i] - mean);
  const Ranked last = fronts_.end(keys_, weights_, ids_, share * total);
  keep([&](size_t i) { return !ComesFirst()(last, {keys_[i], ids_[i]}); });
}

int32_t Distribution::draw(double uniform) const {
  TS_CHECK(0 <= uniform && uniform < 1, "a draw of {}", uniform);
  // The product is below the sum, even when it is rounded, and the same sum is formed once more: there is an end.
  const double place = uniform * sum_of(weights_);
  double sum = 0;
  for (size_t i = 0; i < ids_.size(); ++i) {
    sum += weights_[i];
    if (sum > place) return ids_[i];
  }
  TS_CHECK(false, "a sum of {} does not exceed {}", sum, place);
}

}  // namespace tessera
