#pragma once
// The ten steps from logits to a token once more, row by row of their table: slow, with whole sorts and probabilities
// that are formed anew behind each of them.

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "infer/request.h"

namespace tessera::test {

using Ids = std::vector<int32_t>;

/// The tokens that may be drawn and their probabilities.
using Shares = std::map<int32_t, double>;

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

inline Ids joined(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// Steps 1 and 2.
inline void ban(const Request& request, const Ids& prompt, const Ids& output, std::vector<double>& l) {
  const Sampling& s = request.sampling;
  const Ids all = joined(prompt, output);
  if (s.allowed_token_ids) {
    const std::set<int32_t> allowed(s.allowed_token_ids->begin(), s.allowed_token_ids->end());
    for (int32_t id = 0; id < static_cast<int32_t>(l.size()); ++id)
      if (!allowed.contains(id)) l[id] = kMinusInfinity;
  }
  for (const auto& [id, bias] : s.logit_bias) l[id] += bias;
  for (Ids word : s.bad_words) {
    const int32_t last = word.back();
    word.pop_back();
    if (word.size() <= all.size() && std::equal(word.rbegin(), word.rend(), all.rbegin())) l[last] = kMinusInfinity;
  }
  if (const auto n = static_cast<size_t>(s.no_repeat_ngram_size); n > 0) {
    std::set<Ids> seen;
    for (size_t i = 0; i + n <= all.size(); ++i) seen.insert(Ids(all.begin() + i, all.begin() + i + n));
    if (all.size() + 1 >= n)
      for (int32_t id = 0; id < static_cast<int32_t>(l.size()); ++id) {
        Ids gram(all.end() - (n - 1), all.end());
        gram.push_back(id);
        if (seen.contains(gram)) l[id] = kMinusInfinity;
      }
  }
  if (static_cast<int64_t>(output.size()) < s.min_tokens)
    for (const int32_t id : request.stop_ids) l[id] = kMinusInfinity;
}

/// Steps 3 and 4.
inline void penalise(const Sampling& s, const Ids& prompt, const Ids& output, std::vector<double>& l) {
  const Ids all = joined(prompt, output);
  for (const int32_t id : std::set<int32_t>(all.begin(), all.end()))
    l[id] = l[id] > 0 ? l[id] / s.repetition_penalty : l[id] * s.repetition_penalty;
  for (int32_t id = 0; id < static_cast<int32_t>(l.size()); ++id) {
    const auto count = std::count(output.begin(), output.end(), id);
    l[id] -= s.presence_penalty * (count > 0 ? 1 : 0) + s.frequency_penalty * static_cast<double>(count);
  }
}

inline void normalise(Shares& p) {
  double sum = 0;
  for (const auto& [id, share] : p) sum += share;
  for (auto& [id, share] : p) share /= sum;
}

/// The ids in ascending order of the key; the lower id first on a tie.
template <class Key> Ids sorted_ids(const Shares& p, const Key& key) {
  Ids ids;
  for (const auto& [id, share] : p) ids.push_back(id);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return key(a) < key(b); });
  return ids;
}

/// The shortest front of `order` whose shares reach `wanted`, at least one.
inline void keep_front(const Ids& order, double wanted, Shares& p) {
  Shares kept;
  double sum = 0;
  for (const int32_t id : order) {
    if (!kept.empty() && sum >= wanted) break;
    sum += p.at(id);
    kept[id] = p.at(id);
  }
  p = kept;
  normalise(p);
}

/// Steps 5 to 9 for a temperature above 0; empty when no token is allowed.
inline Shares cut(const Sampling& s, std::vector<double> l) {
  for (double& value : l) value /= s.temperature;
  const double max = *std::max_element(l.begin(), l.end());
  Shares p;
  for (int32_t id = 0; id < static_cast<int32_t>(l.size()); ++id)
    if (l[id] > kMinusInfinity) p[id] = std::exp(l[id] - max);
  if (p.empty()) return p;
  normalise(p);
  const auto light = [&](int32_t id) { return -l[id]; };
  if (s.top_k > 0 && s.top_k < static_cast<int64_t>(p.size())) {
    const Ids order = sorted_ids(p, light);
    for (size_t i = s.top_k; i < order.size(); ++i) p.erase(order[i]);
    normalise(p);
  }
  if (s.top_p < 1) keep_front(sorted_ids(p, light), s.top_p, p);
  double heaviest = 0;
  for (const auto& [id, share] : p) heaviest = std::max(heaviest, share);
  std::erase_if(p, [&](const auto& entry) { return entry.second < s.min_p * heaviest; });
  normalise(p);
  if (s.typical_p < 1) {
    double entropy = 0;
    for (const auto& [id, share] : p) entropy -= share > 0 ? share * std::log(share) : 0;
    keep_front(sorted_ids(p, [&](int32_t id) { return std::abs(-std::log(p.at(id)) - entropy); }), s.typical_p, p);
  }
  return p;
}

/// What may be drawn; a token alone with temperature 0.
inline Shares plain_shares(const std::vector<float>& logits, const Request& request, const Ids& prompt,
                           const Ids& output) {
  std::vector<double> l(logits.begin(), logits.end());
  ban(request, prompt, output, l);
  penalise(request.sampling, prompt, output, l);
  if (request.sampling.temperature > 0) return cut(request.sampling, l);
  const auto best = std::max_element(l.begin(), l.end());
  if (*best == kMinusInfinity) return {};
  return {{static_cast<int32_t>(best - l.begin()), 1.0}};
}

/// Step 10.
inline std::optional<int32_t> plain_draw(const Shares& p, double uniform) {
  double sum = 0;
  for (const auto& [id, share] : p) {
    sum += share;
    if (sum > uniform) return id;
  }
  if (p.empty()) return std::nullopt;
  return p.rbegin()->first;
}

}  // namespace tessera::test
