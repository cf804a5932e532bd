// Weights are exp((logit − max) / temperature), unnormalised: cuts and the draw need only their sum.

#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/functions/functions.h"

namespace tessera {
namespace {

struct Candidate {
  int32_t id;
  double weight;  // exp((logit − max) / temperature)
};

int32_t most_likely(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

[[noreturn]] void fail_not_finite() {
  throw UserError("", "the model's logits are not finite", "its weights are damaged, or training diverged");
}

std::vector<Candidate> candidates(std::span<const float> logits, double max, double temperature) {
  std::vector<Candidate> all(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    // In f64, from the greatest logit down: no exponential is above 1.
    all[i] = {static_cast<int32_t>(i), functions::exp((logits[i] - max) / temperature)};
  return all;
}

double sum_of(const std::vector<Candidate>& list) {
  return std::accumulate(list.begin(), list.end(), 0.0, [](double sum, const Candidate& c) { return sum + c.weight; });
}

/// Keeps the `count` heaviest, heaviest first; the lower id first among equals.
void keep_heaviest(std::vector<Candidate>& list, size_t count) {
  count = std::min(count, list.size());
  // With ties broken by id the order is total, and does not depend on the algorithm.
  std::partial_sort(
      list.begin(), list.begin() + static_cast<ptrdiff_t>(count), list.end(),
      [](const Candidate& a, const Candidate& b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; });
  list.resize(count);
}

/// Of a list from heavy to light, the shortest front part that weighs p of the whole.
void keep_share(std::vector<Candidate>& list, double p) {
  const double wanted = p * sum_of(list);
  double sum = 0;
  size_t count = 0;
  // At least one stays, however small p is.
  while (count < list.size() && (count == 0 || sum < wanted)) sum += list[count++].weight;
  list.resize(count);
}

}  // namespace

int32_t choose_token(std::span<const float> logits, const Sampling& sampling, double uniform) {
  const int32_t best = most_likely(logits);
  const double max = logits[static_cast<size_t>(best)];
  // The greatest is NaN or infinite: nothing can be said of the others.
  if (!std::isfinite(max)) fail_not_finite();
  if (sampling.temperature == 0) return best;

  std::vector<Candidate> list = candidates(logits, max, sampling.temperature);
  // The order matters for the cuts alone; without them the list stays in the order of ids.
  if (sampling.top_k > 0 || sampling.top_p < 1)
    keep_heaviest(list, sampling.top_k > 0 ? static_cast<size_t>(sampling.top_k) : list.size());
  if (sampling.top_p < 1) keep_share(list, sampling.top_p);

  const double total = sum_of(list);
  if (!std::isfinite(total)) fail_not_finite();
  // The inverse of the cumulative distribution at `uniform`, found by walking along it.
  double left = uniform * total;
  for (const Candidate& c : list) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return best;  // rounding: uniform was next to 1
}

}  // namespace tessera
