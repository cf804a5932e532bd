// Merge sort from pairs upward. Each entry carries how many tokens it shares with the entry in front of it in its run;
// in a merge, each run's first entry carries how many it shares with the last entry put out, `last`:
//
//   last   a b c d ...
//   left   a b c e ...   3 in common: goes first, whatever follows, since right leaves `last` earlier and upward
//   right  a b x ...     2 in common
//
// Only when both numbers are equal are tokens compared, from there on. Every equal pair raises the loser's number for
// good and every merged entry costs at most one unequal pair, which gives the bound in the header.

#include "infer/prefix_order.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/error.h"

namespace tessera {
namespace {

struct Entry {
  int32_t request;
  int32_t common;  // tokens shared with the entry in front of it; in a merge, with the entry put out last
};

struct Range {
  Entry *begin, *end;
};

struct Sorted {
  Prompts prompts;
  std::span<const TokenWeights> weights;

  std::span<const int32_t> tokens(const Entry& e) const { return prompts[static_cast<size_t>(e.request)]; }
  TokenWeights weights_of(const Entry& e) const {
    return weights.empty() ? TokenWeights{} : weights[static_cast<size_t>(e.request)];
  }
};

/// Puts the entries of two sorted runs into `out`. The runs' numbers of common tokens are used up.
/// @returns how many comparisons it took
int64_t merge(const Sorted& of, Range left, Range right, Entry* out) {
  int64_t comparisons = 0;
  while (left.begin != left.end && right.begin != right.end) {
    Entry &a = *left.begin, &b = *right.begin;
    bool a_first = a.common > b.common;
    if (a.common == b.common) {
      const auto x = of.tokens(a), y = of.tokens(b);
      const TokenWeights v = of.weights_of(a), w = of.weights_of(b);
      const size_t from = static_cast<size_t>(a.common),
                   most = std::min({x.size(), y.size(), static_cast<size_t>(v.parts_from(w))});
      size_t i = from;
      while (i < most && x[i] == y[i]) ++i;
      comparisons += static_cast<int64_t>(i - from) + 1;
      const auto at = static_cast<int32_t>(i);
      if (i == x.size() && i == y.size())
        a_first = a.request < b.request;
      else
        a_first = i == x.size() || (i < y.size() && std::pair(v.at(at), x[i]) < std::pair(w.at(at), y[i]));
      (a_first ? b : a).common = at;
    }
    *out++ = a_first ? *left.begin++ : *right.begin++;
  }
  out = std::copy(left.begin, left.end, out);
  std::copy(right.begin, right.end, out);
  return comparisons;
}

}  // namespace

int32_t TokenWeights::parts_from(const TokenWeights& other) const {
  if (adapter == other.adapter && from == other.from) return INT32_MAX;
  return std::min(adapter ? from : INT32_MAX, other.adapter ? other.from : INT32_MAX);
}

void check_prompts(Prompts prompts, std::span<const int32_t> requests) {
  for (int32_t request : requests) {
    TS_CHECK(request >= 0 && static_cast<size_t>(request) < prompts.size(), "request {} of {} prompts", request,
             prompts.size());
    TS_CHECK(!prompts[static_cast<size_t>(request)].empty(), "the prompt of request {} has no tokens", request);
  }
}

PrefixOrder sort_by_prefix(Prompts prompts, std::span<const int32_t> requests, int threads,
                           std::span<const TokenWeights> weights) {
  check_prompts(prompts, requests);
  const Sorted of{prompts, weights};
  std::vector<Entry> from, to(requests.size());
  for (int32_t request : requests) from.push_back({request, 0});
  const int64_t count = static_cast<int64_t>(from.size());
  int64_t comparisons = 0;
  // On level l there are 2^l runs, whose lengths differ by at most one; on the lowest one none has two entries. Few are
  // sorted before a team is awake.
  const int levels = count > 1 ? static_cast<int>(std::bit_width(static_cast<uint64_t>(count - 1))) : 0;
  for (int level = levels; level > 0; --level) {
    const int64_t pairs = int64_t{1} << (level - 1);
    const auto entry = [&](int64_t run) { return from.data() + ((count * run) >> level); };
#pragma omp parallel for schedule(guided) num_threads(threads) reduction(+ : comparisons) if (threads > 1 && count > 1 << 10)
    for (int64_t k = 0; k < pairs; ++k)
      comparisons += merge(of, {entry(2 * k), entry(2 * k + 1)}, {entry(2 * k + 1), entry(2 * k + 2)},
                           to.data() + (entry(2 * k) - from.data()));
    from.swap(to);
  }
  PrefixOrder sorted{.order = {}, .common = {}, .comparisons = comparisons};
  for (const Entry& e : from) {
    sorted.order.push_back(e.request);
    sorted.common.push_back(e.common);
  }
  return sorted;
}

}  // namespace tessera
