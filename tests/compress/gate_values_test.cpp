// Gates and their constraint as formulas: ends, slopes, the schedule, what passes the clamp.

#include "compress/gate_values.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tessera {
namespace {

TEST(GateValues, EndsAreExactForEverySmoothing) {
  for (const double eps : {1.0, 0.3, 1e-3, 1e-9}) {
    EXPECT_EQ(gate_value(1, eps), 1);
    EXPECT_EQ(gate_value(0, eps), 0);
    EXPECT_EQ(gate_value(1.7, eps), 1) << "clamped when read";
    EXPECT_EQ(gate_value(-0.4, eps), 0);
  }
  EXPECT_EQ(gate_slope(1, 1), 1) << "nothing starts stuck";
  EXPECT_EQ(gate_slope(0, 1e-3), 0);
}

TEST(GateValues, SlopeIsTheDerivative) {
  for (const double eps : {1.0, 0.1, 1e-3})
    for (const double theta : {0.02, 0.3, 0.77, 0.999}) {
      const double h = 1e-6, numeric = (gate_value(theta + h, eps) - gate_value(theta - h, eps)) / (2 * h);
      EXPECT_NEAR(gate_slope(theta, eps), numeric, 1e-6 * std::max(1.0, numeric)) << theta << " " << eps;
    }
}

TEST(GateValues, SmallSmoothingDrawsToTheEnds) {
  EXPECT_GT(gate_value(0.2, 1e-3), 0.97);
  EXPECT_LT(gate_value(0.2, 1.0), 0.08);
  EXPECT_LT(gate_value(0.005, 1e-3), 0.03);
}

TEST(GateValues, SmoothingFallsGeometricallyOverFourFifthsOfTheSteps) {
  EXPECT_EQ(gate_eps(1, 400, 1e-3), 1);
  EXPECT_NEAR(gate_eps(161, 400, 1e-3), std::sqrt(1e-3), 1e-12);
  EXPECT_NEAR(gate_eps(321, 400, 1e-3), 1e-3, 1e-15);
  EXPECT_EQ(gate_eps(400, 400, 1e-3), gate_eps(321, 400, 1e-3));
  EXPECT_NEAR(gate_eps(42, 400, 1e-3) / gate_eps(41, 400, 1e-3), gate_eps(242, 400, 1e-3) / gate_eps(241, 400, 1e-3),
              1e-12);
}

TEST(GateValues, OutsideTheRangeOnlyTheWayBackPasses) {
  EXPECT_EQ(gradient_through_clamp(1.2, 0.5), 0.5);  // a step lowers theta
  EXPECT_EQ(gradient_through_clamp(1.2, -0.5), 0);
  EXPECT_EQ(gradient_through_clamp(-0.1, -0.5), -0.5);
  EXPECT_EQ(gradient_through_clamp(-0.1, 0.5), 0);
  for (const double inside : {0.0, 0.4, 1.0})
    for (const double gradient : {-0.5, 0.5}) EXPECT_EQ(gradient_through_clamp(inside, gradient), gradient);
}

TEST(GateValues, TheBendRisesEvenlyOverNineTenthsOfTheSteps) {
  EXPECT_EQ(gate_bend(1, 400), 0);
  EXPECT_NEAR(gate_bend(181, 400), 1, 1e-12);
  EXPECT_NEAR(gate_bend(361, 400), 2, 1e-12);
  EXPECT_EQ(gate_bend(400, 400), 2);
}

TEST(CostConstraint, IsFeltAboveTheTargetAlone) {
  const CostConstraint constraint({0.5, 0.25, 0.25}, 0.75, 10);
  const std::vector<double> open = {1, 1, 1}, met = {1, 0.5, 0.25};
  EXPECT_EQ(constraint.kept(open), 1);
  EXPECT_EQ(constraint.penalty(1, 0.4), 0.4 * 0.25 + 5 * 0.25 * 0.25);
  EXPECT_EQ(constraint.slope(0, 1, 0, 1, 0.4), 0.5 * (0.4 + 10 * 0.25));
  const double kept = constraint.kept(met);
  EXPECT_LT(kept, 0.75);
  EXPECT_EQ(constraint.counted(met, 0), kept);
  EXPECT_EQ(constraint.penalty(kept, 3), 0);
  EXPECT_EQ(constraint.slope(1, 0.5, 2, kept, 3), 0);
}

TEST(CostConstraint, GatesBetweenTheirEndsCountForMoreThanTheyKeep) {
  const CostConstraint constraint({0.5, 0.25, 0.25}, 0.75, 10);
  const std::vector<double> polar = {1, 0, 1}, between = {1, 0.5, 0.25};
  EXPECT_EQ(constraint.counted(polar, 2), constraint.kept(polar));
  EXPECT_DOUBLE_EQ(constraint.counted(between, 2), constraint.kept(between) + 2 * 0.25 * (0.25 + 0.1875));
}

TEST(CostConstraint, SlopeIsThePenaltysDerivative) {
  const CostConstraint constraint({0.5, 0.3, 0.2}, 0.6, 7);
  const std::vector<double> gates = {0.9, 0.8, 0.7};
  for (const double bend : {0.0, 0.7, 2.0})
    for (size_t i = 0; i < gates.size(); ++i) {
      const double h = 1e-6;
      std::vector<double> up = gates, down = gates;
      up[i] += h, down[i] -= h;
      const auto penalty = [&](const std::vector<double>& at) {
        return constraint.penalty(constraint.counted(at, bend), 0.3);
      };
      const double slope = constraint.slope(i, gates[i], bend, constraint.counted(gates, bend), 0.3);
      EXPECT_NEAR(slope, (penalty(up) - penalty(down)) / (2 * h), 1e-8) << bend << " " << i;
    }
}

TEST(CostConstraint, AscentRaisesTheMultiplierWhileItIsBrokenAndNeverBelowZero) {
  const CostConstraint constraint({1}, 0.75, 10);
  EXPECT_EQ(constraint.ascended(1, 0.5), 3);
  EXPECT_EQ(constraint.ascended(0.7, 0.6), 0.6 + 10 * (0.7 - 0.75));
  EXPECT_EQ(constraint.ascended(0.2, 1), 0);
}

/// Eight gates of equal cost, trained as those of a model are, on a loss that is convex in them:
/// Σ h (1 - g)² / 2 + 0.05 (Σ (1 - g))² / 2.
std::vector<double> gates_of_a_convex_loss(bool bends) {
  const std::vector<double> h = {0.9, 0.6, 0.5, 0.8, 0.7, 1.0, 1.1, 0.75};
  const CostConstraint constraint(std::vector<double>(8, 0.125), 0.75, 10);
  const int64_t steps = 200;
  std::vector<double> theta(8, 1.0), first(8, 0.0), second(8, 0.0), gates(8);
  double mu = 0;
  for (int64_t step = 1; step <= steps + 1; ++step) {
    const double eps = gate_eps(step, steps, 1e-3), bend = bends ? gate_bend(step, steps) : 0;
    double shut = 0;
    for (size_t i = 0; i < 8; ++i) shut += 1 - (gates[i] = gate_value(theta[i], eps));
    if (step > steps) break;
    const double counted = constraint.counted(gates, bend);
    for (size_t i = 0; i < 8; ++i) {
      const double dgate = -h[i] * (1 - gates[i]) - 0.05 * shut + constraint.slope(i, gates[i], bend, counted, mu);
      const double gradient = gradient_through_clamp(theta[i], dgate * gate_slope(theta[i], eps));
      first[i] = 0.9 * first[i] + 0.1 * gradient;
      second[i] = 0.999 * second[i] + 0.001 * gradient * gradient;
      const auto t = static_cast<double>(step);
      theta[i] -= 0.02 * first[i] / (1 - std::pow(0.9, t)) / (std::sqrt(second[i] / (1 - std::pow(0.999, t))) + 1e-8);
    }
    if (step % 10 == 0) mu = constraint.ascended(counted, mu);
  }
  return gates;
}

TEST(CostConstraint, PartsGatesOfAConvexLossWhichWithoutTheBendShareTheCost) {
  const auto count_between = [](const std::vector<double>& gates) {
    return std::ranges::count_if(gates, [](double g) { return g > 0.05 && g < 0.95; });
  };
  const std::vector<double> bent = gates_of_a_convex_loss(true);
  EXPECT_EQ(count_between(bent), 0);
  EXPECT_LT(bent[1] + bent[2], 0.1) << "the two that cost least";
  EXPECT_NEAR(std::accumulate(bent.begin(), bent.end(), 0.0) / 8, 0.75, 0.0075);
  EXPECT_EQ(count_between(gates_of_a_convex_loss(false)), 8);
}

}  // namespace
}  // namespace tessera
