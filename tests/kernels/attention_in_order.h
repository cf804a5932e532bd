#pragma once
// Attention of one query of one head in plain loops, in the order that docs/determinism.md defines: every kernel has to
// give these bits.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "core/functions/functions.h"

namespace tessera::test {

/// What a query has of some keys: its output and the log of the sum of exponentials.
struct Attended {
  std::vector<float> out;
  float lse;
};

constexpr float kNothingSeen = -std::numeric_limits<float>::infinity();

inline Attended merged_in_order(const Attended& x, const Attended& y) {
  if (y.lse == kNothingSeen) return x;
  if (x.lse == kNothingSeen) return y;
  const float top = std::max(x.lse, y.lse), w = functions::exp(x.lse - top), v = functions::exp(y.lse - top);
  const float sum = w + v, inverse = 1 / sum, a = w * inverse, b = v * inverse;
  Attended merged{x.out, top + functions::log(sum)};
  for (size_t c = 0; c < x.out.size(); ++c) {
    const float kept = a * x.out[c];
    merged.out[c] = std::fma(b, y.out[c], kept);
  }
  return merged;
}

/// Keys [begin, end) of a document, of which the query sees [first, last): one softmax.
/// @param row  (key) -> its numbers of the head
inline Attended span_in_order(const std::vector<float>& scaled_q, int64_t begin, int64_t end, int64_t first,
                              int64_t last, const std::function<const float*(int64_t)>& k,
                              const std::function<const float*(int64_t)>& v) {
  const size_t dim = scaled_q.size();
  Attended span{std::vector<float>(dim, 0.0f), kNothingSeen};
  float max = kNothingSeen, sum = 0;
  for (int64_t block = begin; block < end; block += 128) {
    const int64_t from = std::max(block, first), to = std::min({block + 128, end, last});
    if (from >= to) continue;
    std::vector<float> scores;
    float top = max;
    for (int64_t j = from; j < to; ++j) {
      float score = 0;
      for (size_t c = 0; c < dim; ++c) score = std::fma(k(j)[c], scaled_q[c], score);
      scores.push_back(score);
      top = std::max(top, score);
    }
    float total = 0;
    for (float& score : scores) total += score = functions::exp(score - top);
    const float factor = max == kNothingSeen ? 0 : functions::exp(max - top);
    max = top;
    sum = std::fma(factor, sum, total);
    for (size_t c = 0; c < dim; ++c) {
      float added = 0;
      for (int64_t j = from; j < to; ++j) added = std::fma(v(j)[c], scores[static_cast<size_t>(j - from)], added);
      const float kept = factor * span.out[c];
      span.out[c] = kept + added;
    }
  }
  if (sum == 0) return span;
  const float inverse = 1 / sum;
  for (float& x : span.out) x *= inverse;
  span.lse = max + functions::log(sum);
  return span;
}

/// A query that stands at `position` of a document and sees its keys up to itself; of a window's length, if not 0.
inline Attended attention_in_order(const float* q, size_t dim, float scale, int64_t position, int64_t window,
                                   const std::function<const float*(int64_t)>& k,
                                   const std::function<const float*(int64_t)>& v) {
  std::vector<float> scaled(q, q + dim);
  for (float& x : scaled) x *= scale;
  const int64_t last = position + 1, first = window > 0 ? std::max<int64_t>(0, last - window) : 0;
  Attended all{std::vector<float>(dim, 0.0f), kNothingSeen};
  for (int64_t span = 0; span < last; span += 1024)
    all = merged_in_order(all, span_in_order(scaled, span, std::min(span + 1024, last), first, last, k, v));
  return all;
}

}  // namespace tessera::test
