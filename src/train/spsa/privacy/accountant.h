#pragma once
// What votes cost of differential privacy: Rényi divergences of the Gaussian mechanism on a Poisson sample, added up
// over releases (Mironov, Talwar, Zhang 2019, arXiv:1908.10530), and the epsilon that they amount to.

#include <cstdint>

namespace tessera {

/// A release: each of the documents takes part with probability q, by itself; the sum of what they give, at most C
/// each, gets noise of deviation sigma · C. Neighbours differ by one document, added or removed.
struct Release {
  double q = 1;      // above 0 to 1
  double sigma = 1;  // above 0
};

/// R(a) = 1/(a − 1) · log Σ_{j=0..a} binom(a, j) (1 − q)^(a − j) q^j exp((j² − j) / (2 sigma²));  q = 1: a / (2 sigma²)
/// @param order  a, at least 2
double renyi_divergence(int64_t order, const Release&);

/// epsilon = min over a of  k R(a) + log(1 − 1/a) − (log delta + log a) / (a − 1),  at least 0, of k releases:
/// a in 2 .. 64, 80, 96, 128, 256, 512, 1024. Fractions between would find up to 1.5 % less: this is the safe side.
double epsilon_of(int64_t releases, const Release&, double delta);

/// The most releases that keep within epsilon.
int64_t releases_within(double epsilon, const Release&, double delta);

/// The smallest sigma, rounded up to 1e-4, that keeps so many releases within epsilon.
/// @throws UserError without a place when none up to 1e6 does
double smallest_noise(double epsilon, int64_t releases, double q, double delta);

}  // namespace tessera
