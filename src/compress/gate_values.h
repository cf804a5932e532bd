#pragma once
// The arithmetic of gates while they are trained: a parameter theta a gate, and what becomes of it.
//
//   t = clamp(theta, 0, 1)                                  theta itself is never clamped
//   g = (1 + eps) t² / (t² + eps)                           g(0) = 0 and g(1) = 1 exactly, for every eps
//   eps falls from 1 (g is smooth, its slope at 1 is 1) to eps_end (g is nearly a step at sqrt(eps)): gates polarise
//
// and the constraint on the kept cost K = Σ c g, whose costs c sum to 1: while K is above the target,
//   mu (K − target) + weight/2 (K − target)²  is added to the loss, and mu is raised by dual ascent.

#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

/// Smoothing of a step: eps_end to the power of how much of the first 80 % of the steps lies behind; 1 at step 1.
/// @param step  from 1
double gate_eps(int64_t step, int64_t steps, double eps_end);

double gate_value(double theta, double eps);
/// dg/dt at t = clamp(theta, 0, 1).
double gate_slope(double theta, double eps);
/// What the optimizer gets for theta: the loss's gradient at the clamped one, but outside [0, 1] only where the step
/// leads back inside, so that no theta is carried further out.
double gradient_through_clamp(double theta, double dloss_dt);

class CostConstraint {
 public:
  /// @param costs  one a gate, all of them together 1
  CostConstraint(std::vector<double> costs, double target, double weight)
      : costs_(std::move(costs)), target_(target), weight_(weight) {}

  double kept(std::span<const double> gates) const;
  double target() const { return target_; }
  double penalty(double kept, double mu) const;
  /// d penalty / d gate.
  double slope(size_t gate, double kept, double mu) const;
  /// mu after a step of dual ascent: max(0, mu + weight · (kept − target)).
  double ascended(double kept, double mu) const;

 private:
  std::vector<double> costs_;
  double target_, weight_;
};

}  // namespace tessera
