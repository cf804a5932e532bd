#include "infer/sampler.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "core/error.h"

namespace tessera {
namespace {

/// The first of the largest; nothing when all are −∞.
std::optional<int32_t> place_of_largest(std::span<const double> values) {
  const auto best = std::max_element(values.begin(), values.end());
  if (*best == -std::numeric_limits<double>::infinity()) return std::nullopt;
  return static_cast<int32_t>(best - values.begin());
}

}  // namespace

void require_finite(std::span<const float> logits) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t faults = 0;
  // Without a branch: the compiler turns this into vectors.
  for (const float x : logits) faults += (std::bit_cast<uint32_t>(x) & kExponent) == kExponent;
  if (faults > 0)
    throw UserError("", "the model's logits are not finite", "its weights are damaged, or training diverged");
}

int32_t most_likely(std::span<const float> logits) {
  require_finite(logits);
  // Numbers whose order is that of the floats: the compiler makes vectors of their maximum, not of that of floats.
  // Adding 0 makes a zero of −0, its equal.
  int32_t largest = std::numeric_limits<int32_t>::min();
  const auto ordered = [](float x) {
    const auto bits = std::bit_cast<int32_t>(x + 0.0f);
    return bits ^ ((bits >> 31) & 0x7fffffff);
  };
  for (const float x : logits) largest = std::max(largest, ordered(x));
  const auto first = std::find_if(logits.begin(), logits.end(), [&](float x) { return ordered(x) == largest; });
  return static_cast<int32_t>(first - logits.begin());
}

TokenChooser::TokenChooser(int64_t vocab) : steps_(vocab), values_(static_cast<size_t>(vocab)) {}

std::optional<int32_t> TokenChooser::choose(std::span<const float> logits, const Request& request,
                                            std::span<const int32_t> prompt, std::span<const int32_t> output,
                                            double uniform) {
  TS_CHECK(logits.size() == values_.size(), "{} logits, expected {}", logits.size(), values_.size());
  const bool greedy = request.sampling.temperature == 0;
  const bool changed = LogitSteps::change(request, static_cast<int64_t>(output.size()));
  if (greedy && !changed) return most_likely(logits);

  require_finite(logits);
  std::copy(logits.begin(), logits.end(), values_.begin());
  if (changed) steps_.apply(request, {prompt, output}, values_);
  if (greedy) return place_of_largest(values_);
  if (!distribution_.assign(values_, request.sampling)) return std::nullopt;
  return distribution_.draw(uniform);
}

int32_t choose_token(std::span<const float> logits, const Sampling& sampling, double uniform) {
  Request request;
  request.sampling = sampling;
  const std::optional<int32_t> token =
      TokenChooser(static_cast<int64_t>(logits.size())).choose(logits, request, {}, {}, uniform);
  TS_CHECK(token, "no token is allowed");
  return *token;
}

}  // namespace tessera
