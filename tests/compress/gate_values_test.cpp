// Gates and their constraint as formulas: ends, slopes, the schedule, what passes the clamp.

#include "compress/gate_values.h"

#include <gtest/gtest.h>

#include <cmath>

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

TEST(CostConstraint, IsFeltAboveTheTargetAlone) {
  const CostConstraint constraint({0.5, 0.25, 0.25}, 0.75, 10);
  const std::vector<double> open = {1, 1, 1}, met = {1, 0.5, 0.25};
  EXPECT_EQ(constraint.kept(open), 1);
  EXPECT_EQ(constraint.penalty(1, 0.4), 0.4 * 0.25 + 5 * 0.25 * 0.25);
  EXPECT_EQ(constraint.slope(0, 1, 0.4), 0.5 * (0.4 + 10 * 0.25));
  const double kept = constraint.kept(met);
  EXPECT_LT(kept, 0.75);
  EXPECT_EQ(constraint.penalty(kept, 3), 0);
  EXPECT_EQ(constraint.slope(1, kept, 3), 0);
}

TEST(CostConstraint, SlopeIsThePenaltysDerivative) {
  const CostConstraint constraint({0.5, 0.3, 0.2}, 0.6, 7);
  std::vector<double> gates = {0.9, 0.8, 0.7};
  const double kept = constraint.kept(gates), h = 1e-6;
  for (size_t i = 0; i < gates.size(); ++i) {
    std::vector<double> up = gates, down = gates;
    up[i] += h, down[i] -= h;
    const double numeric =
        (constraint.penalty(constraint.kept(up), 0.3) - constraint.penalty(constraint.kept(down), 0.3)) / (2 * h);
    EXPECT_NEAR(constraint.slope(i, kept, 0.3), numeric, 1e-8);
  }
}

TEST(CostConstraint, AscentRaisesTheMultiplierWhileItIsBrokenAndNeverBelowZero) {
  const CostConstraint constraint({1}, 0.75, 10);
  EXPECT_EQ(constraint.ascended(1, 0.5), 3);
  EXPECT_EQ(constraint.ascended(0.7, 0.6), 0.6 + 10 * (0.7 - 0.75));
  EXPECT_EQ(constraint.ascended(0.2, 1), 0);
}

}  // namespace
}  // namespace tessera
