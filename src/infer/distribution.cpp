// Candidates stay in ascending id. A cut finds the last token that stays, in the order of the cut, and drops those
// behind it: the order of a whole vocabulary is never formed.

#include "infer/distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/functions/functions.h"
#include "infer/shortlist.h"

namespace tessera {
namespace {

using Candidate = Distribution::Candidate;

/// Larger x first, the lower id first on a tie: a total order.
bool comes_first(const Candidate& a, const Candidate& b) { return a.x != b.x ? a.x > b.x : a.id < b.id; }

double sum_of(std::span<const Candidate> list) {
  double sum = 0;
  for (const Candidate& c : list) sum += c.weight;
  return sum;
}

/// All but those whose value is −∞; x is the value.
void collect(std::span<const double> values, std::vector<Candidate>& list) {
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i] > -std::numeric_limits<double>::infinity()) list.push_back({values[i], 0, static_cast<int32_t>(i)});
}

/// From values to x and weights.
void weigh(std::vector<Candidate>& list, double temperature) {
  double max = list.front().x;
  for (const Candidate& c : list) max = std::max(max, c.x);
  for (Candidate& c : list) {
    c.x = (c.x - max) / temperature;
    c.weight = functions::exp(c.x);
  }
}

}  // namespace

void Distribution::assign(std::span<const double> values, const Sampling& sampling) {
  TS_CHECK(sampling.temperature > 0, "a temperature of {}", sampling.temperature);
  candidates_.clear();
  collect(values, candidates_);
  TS_CHECK(!candidates_.empty(), "no token is allowed");
  // Before exponentials are formed, of which few are left to form.
  keep_top_k(sampling.top_k);
  weigh(candidates_, sampling.temperature);
  keep_top_p(sampling.top_p);
  keep_min_p(sampling.min_p);
  keep_typical(sampling.typical_p);
}

void Distribution::keep_top_k(int64_t k) {
  if (k <= 0 || k >= static_cast<int64_t>(candidates_.size())) return;
  Shortlist<Candidate, decltype(&comes_first)> heaviest(static_cast<size_t>(k), comes_first);
  for (const Candidate& c : candidates_) heaviest.offer(c);
  candidates_ = heaviest.take();
  std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

template <class Key> void Distribution::keep_front(double wanted, double lightest, const Key& key) {
  const auto keyed = [&](const Candidate& c) { return Candidate{key(c), c.weight, c.id}; };
  const auto comes_last = [](const Candidate& a, const Candidate& b) { return comes_first(b, a); };
  heap_.clear();
  for (const Candidate& c : candidates_)
    if (c.weight >= lightest) heap_.push_back(keyed(c));
  std::make_heap(heap_.begin(), heap_.end(), comes_last);
  double sum = 0;
  Candidate last;
  // At least one stays, however small the share is.
  do {
    std::pop_heap(heap_.begin(), heap_.end(), comes_last);
    last = heap_.back();
    heap_.pop_back();
    sum += last.weight;
  } while (sum < wanted && !heap_.empty());
  std::erase_if(candidates_, [&](const Candidate& c) { return comes_first(last, keyed(c)); });
}

void Distribution::keep_top_p(double share) {
  if (share >= 1) return;
  const double total = sum_of(candidates_), rest = 1 - share;
  // All tokens lighter than this weigh less than half of the rest: the front ends before them, and they need no order.
  // Where rounding could make up the other half, none is left out.
  const double lightest = rest < 1e-9 ? 0 : rest / 2 * total / static_cast<double>(candidates_.size());
  keep_front(share * total, lightest, [](const Candidate& c) { return c.x; });
}

void Distribution::keep_min_p(double share) {
  // The heaviest weighs exp(0) = 1.
  if (share > 0) std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < share; });
}

void Distribution::keep_typical(double share) {
  if (share >= 1) return;
  const double total = sum_of(candidates_);
  double sum = 0;
  // Where exp(x) is 0, x may be −∞.
  for (const Candidate& c : candidates_)
    if (c.weight > 0) sum += c.weight * c.x;
  const double mean = sum / total;
  keep_front(share * total, 0, [&](const Candidate& c) { return -std::abs(c.x - mean); });
}

int32_t Distribution::draw(double uniform) const {
  TS_CHECK(0 <= uniform && uniform < 1, "a draw of {}", uniform);
  // The product is below the sum, even when it is rounded, and the same sum is formed once more: there is an end.
  const double place = uniform * sum_of(candidates_);
  double sum = 0;
  for (const Candidate& c : candidates_) {
    sum += c.weight;
    if (sum > place) return c.id;
  }
  TS_CHECK(false, "a sum of {} does not exceed {}", sum, place);
}

}  // namespace tessera
