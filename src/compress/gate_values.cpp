#include "compress/gate_values.h"

#include <algorithm>

#include "core/functions/functions.h"

namespace tessera {
namespace {

constexpr double kBend = 2;  // at the end

double clamped(double theta) { return std::clamp(theta, 0.0, 1.0); }

}  // namespace

double gate_eps(int64_t step, int64_t steps, double eps_end) {
  const double ramp = 0.8 * static_cast<double>(steps);
  return functions::pow(eps_end, std::min(1.0, static_cast<double>(step - 1) / ramp));
}

double gate_bend(int64_t step, int64_t steps) {
  const double ramp = 0.9 * static_cast<double>(steps);
  return kBend * std::min(1.0, static_cast<double>(step - 1) / ramp);
}

double gate_value(double theta, double eps) {
  const double t = clamped(theta);
  return t == 1 ? 1 : (1 + eps) * t * t / (t * t + eps);
}

double gate_slope(double theta, double eps) {
  const double t = clamped(theta), root = t * t + eps;
  return (1 + eps) * 2 * t * eps / (root * root);
}

double gradient_through_clamp(double theta, double dloss_dt) {
  const bool leads_inside = theta > 1 ? dloss_dt > 0 : theta < 0 ? dloss_dt < 0 : true;
  return leads_inside ? dloss_dt : 0;
}

double CostConstraint::kept(std::span<const double> gates) const {
  double sum = 0;
  for (size_t i = 0; i < costs_.size(); ++i) sum += costs_[i] * gates[i];
  return sum;
}

double CostConstraint::counted(std::span<const double> gates, double bend) const {
  double sum = 0;
  for (size_t i = 0; i < costs_.size(); ++i) sum += costs_[i] * (gates[i] + bend * gates[i] * (1 - gates[i]));
  return sum;
}

double CostConstraint::penalty(double counted, double mu) const {
  const double above = std::max(0.0, counted - target_);
  return mu * above + weight_ / 2 * above * above;
}

double CostConstraint::slope(size_t number, double gate, double bend, double counted, double mu) const {
  const double above = counted - target_;
  return above > 0 ? costs_[number] * (mu + weight_ * above) * (1 + bend * (1 - 2 * gate)) : 0;
}

double CostConstraint::ascended(double counted, double mu) const {
  return std::max(0.0, mu + weight_ * (counted - target_));
}

}  // namespace tessera
