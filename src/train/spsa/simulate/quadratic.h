#pragma once
// A loss that many simulated machines can look at: a quadratic, whose slopes along directions are table look-ups.

#include "model/parameter_pool.h"
#include "train/spsa/simulate/sim_losses.h"

namespace tessera {

/// L(w) = 1/2 · Σ_p lambda_p (w_p − w*_p)²,  lambda_p = 1 / (1 + p / 64),  p < 4096,  w_0 = 0,
/// w*_p = the sign of weight p in the direction (seed, round 0, machine kQuadraticStream, sample 0).
class Quadratic {
 public:
  static constexpr int64_t kWeights = 4096;
  /// @param seed  of the run's header
  explicit Quadratic(uint64_t seed);

  /// lambda_p (w_p − w*_p) for all p. @param w  [4096] f32
  std::vector<double> gradient(ConstView w) const;
  double loss(ConstView w) const;

 private:
  std::vector<double> lambda_, minimum_;  // [4096]
};

/// Slopes of a linear function along directions of +1 and −1: Σ_p c_p z_p, in f64.
/// Eight weights have 256 patterns of signs, and the sums of these are kept: a slope is a sum of P / 8 of them, each of
/// which was added up from its first weight on.
class SlopeTable {
 public:
  /// @param coefficients  as many as a multiple of 128
  explicit SlopeTable(const std::vector<double>& coefficients);
  double along(const Direction&) const;
  double norm() const { return norm_; }  // ||c||

 private:
  int64_t blocks_;            // of 128 weights
  std::vector<double> sums_;  // [P / 8, 256]
  double norm_;
};

/// The machines' g on the quadratic, exact for any eps, since squares cancel, with noise as that of batches:
///   g = Σ_p lambda_p (w_p − w*_p) z_p + 0.5 · ||lambda (w − w*)|| · u,   u uniform in −1 .. 1
/// u is drawn from (simulate.seed, machine, round, probe). The loss that is told is L(w).
std::unique_ptr<SimLosses> make_quadratic_losses(const RunHeader&, uint64_t simulate_seed);

/// The weights of the quadratic at their start, as a pool's one slot.
void reserve_quadratic(ParameterPool&);

}  // namespace tessera
