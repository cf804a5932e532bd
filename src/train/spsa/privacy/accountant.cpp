#include "train/spsa/privacy/accountant.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"

namespace tessera {
namespace {

constexpr double kGrain = 1e-4, kMostNoise = 1e6;

const std::vector<int64_t>& orders() {
  static const std::vector<int64_t> list = [] {
    std::vector<int64_t> all;
    for (int64_t a = 2; a <= 64; ++a) all.push_back(a);
    for (const int64_t a : {80, 96, 128, 256, 512, 1024}) all.push_back(a);
    return all;
  }();
  return list;
}

double log_binomial(double n, double k) { return std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1); }

double log_of_sum(const std::vector<double>& logs) {
  const double largest = *std::ranges::max_element(logs);
  double sum = 0;
  for (const double value : logs) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

/// Once for all numbers of releases: the cost of a release at each order.
std::vector<double> divergences(const Release& release) {
  std::vector<double> all;
  for (const int64_t order : orders()) all.push_back(renyi_divergence(order, release));
  return all;
}

double epsilon_at(int64_t releases, const std::vector<double>& divergence, double delta) {
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < divergence.size(); ++i) {
    const auto a = static_cast<double>(orders()[i]);
    const double epsilon =
        static_cast<double>(releases) * divergence[i] + std::log1p(-1 / a) - (std::log(delta) + std::log(a)) / (a - 1);
    least = std::min(least, epsilon);
  }
  return std::max(0.0, least);
}

}  // namespace

double renyi_divergence(int64_t order, const Release& release) {
  const auto a = static_cast<double>(order);
  const double spread = 2 * release.sigma * release.sigma;
  if (release.q == 1) return a / spread;
  std::vector<double> logs;
  for (int64_t k = 0; k <= order; ++k) {
    const auto j = static_cast<double>(k);
    logs.push_back(log_binomial(a, j) + (a - j) * std::log1p(-release.q) + j * std::log(release.q) +
                   (j * j - j) / spread);
  }
  return std::max(0.0, log_of_sum(logs)) / (a - 1);
}

double epsilon_of(int64_t releases, const Release& release, double delta) {
  return releases == 0 ? 0 : epsilon_at(releases, divergences(release), delta);
}

int64_t releases_within(double epsilon, const Release& release, double delta) {
  const std::vector<double> divergence = divergences(release);
  int64_t within = 0, beyond = 1;
  while (epsilon_at(beyond, divergence, delta) <= epsilon && beyond < (int64_t{1} << 60)) {
    within = beyond;
    beyond *= 2;
  }
  while (beyond - within > 1) {
    const int64_t middle = within + (beyond - within) / 2;
    (epsilon_at(middle, divergence, delta) <= epsilon ? within : beyond) = middle;
  }
  return within;
}

double smallest_noise(double epsilon, int64_t releases, double q, double delta) {
  const auto keeps = [&](double sigma) { return epsilon_of(releases, {q, sigma}, delta) <= epsilon; };
  double low = 0, high = 1;
  while (!keeps(high)) {
    low = high;
    high *= 2;
    if (high > kMostNoise)
      throw UserError("", fmt::format("no noise keeps {} releases within epsilon = {}", releases, epsilon),
                      "raise privacy.epsilon, or take fewer rounds or probes");
  }
  while (high - low > kGrain / 4) {
    const double middle = (low + high) / 2;
    (keeps(middle) ? high : low) = middle;
  }
  const double sigma = std::ceil(high / kGrain) * kGrain;
  return keeps(sigma) ? sigma : sigma + kGrain;
}

}  // namespace tessera
