#pragma once
// The arithmetic of gates while they are trained: a parameter theta a gate, and what becomes of it.
//
//   t = clamp(theta, 0, 1)                                  theta itself is never clamped
//   g = (1 + eps) t² / (t² + eps)                           g(0) = 0 and g(1) = 1 exactly, for every eps
//   eps falls from 1 (g is smooth, its slope at 1 is 1) to eps_end (g is nearly a step at sqrt(eps)): gates polarise
//
// and the constraint on the kept cost K = Σ c g, whose costs c sum to 1. It sees gates by what they count,
//
//   H = Σ c (g + bend g (1 − g))                            K where all gates are open or shut, more where they are not
//
// and while H is above the target, mu (H − target) + weight/2 (H − target)² is added to the loss and mu is raised by
// dual ascent. Without the bend gates would not polarise: the loss of a frozen model is convex in its gates, so that it
// costs least to lower many of them a little, whatever theta they are read through. A concave count makes the same
// sum dearer the more gates share in it: of bend 1 on, gates whose curvature is below 2 mu c bend cannot stay between.
// As bend rises with the steps, the relaxed problem, which has one solution, passes over into the choice of blocks
// (graduated non-convexity: Blake & Zisserman, Visual Reconstruction, 1987; the concave term itself: Murray & Ng,
// An algorithm for nonlinear optimization problems with binary variables, 2010).

#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

/// Smoothing of a step: eps_end to the power of how much of the first 80 % of the steps lies behind; 1 at step 1.
/// @param step  from 1
double gate_eps(int64_t step, int64_t steps, double eps_end);

/// How much dearer a gate between its ends counts: from 0 at step 1 evenly to 2 where 90 % of the steps lie behind.
/// @param step  from 1
double gate_bend(int64_t step, int64_t steps);

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

  /// K
  double kept(std::span<const double> gates) const;
  /// H
  double counted(std::span<const double> gates, double bend) const;
  double target() const { return target_; }
  double penalty(double counted, double mu) const;
  /// d penalty / d gate, of the gate with that number and value.
  double slope(size_t number, double gate, double bend, double counted, double mu) const;
  /// mu after a step of dual ascent: max(0, mu + weight · (counted − target)).
  double ascended(double counted, double mu) const;

 private:
  std::vector<double> costs_;
  double target_, weight_;
};

}  // namespace tessera
