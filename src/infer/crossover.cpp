#include "infer/crossover.h"

#include <algorithm>
#include <cmath>

namespace tessera {
namespace {

/// t = constant + slope · keys
struct Line {
  double constant = 0, slope = 0;
};

/// The line with the least Σ (1 − (c0 + c1 · keys) / t)²; c0 is 0 where it would be negative.
Line fit_line(std::span<const TimedVisit> visits, double TimedVisit::*seconds) {
  double w = 0, wx = 0, wxx = 0, wt = 0, wxt = 0;  // with weights 1 / t²
  for (const TimedVisit& v : visits) {
    const double t = v.*seconds, weight = 1 / (t * t), x = static_cast<double>(v.keys);
    w += weight, wx += weight * x, wxx += weight * x * x;
    wt += weight * t, wxt += weight * x * t;
  }
  const double slope = (w * wxt - wx * wt) / (w * wxx - wx * wx), constant = (wt - slope * wx) / w;
  return constant >= 0 ? Line{constant, slope} : Line{0, wxt / wxx};
}

/// The smallest number of keys from which on `joint` is not above `alone`.
int64_t first_not_above(const Line& joint, const Line& alone) {
  if (joint.slope > alone.slope) return Crossover::kNever;
  if (joint.constant <= alone.constant) return 0;
  const double keys = (joint.constant - alone.constant) / (alone.slope - joint.slope);
  // Also not a number below it: lines that never meet.
  return keys < 1e9 ? static_cast<int64_t>(std::ceil(keys)) : Crossover::kNever;
}

}  // namespace

bool Crossover::pays(int64_t rows, int64_t keys) const {
  if (points_.empty()) return true;
  const auto behind =
      std::upper_bound(points_.begin(), points_.end(), rows, [](int64_t r, const Point& p) { return r < p.rows; });
  const Point& point = behind == points_.begin() ? *behind : behind[-1];
  return point.prefix != kNever && keys >= point.prefix;
}

Crossover fit_crossover(std::span<const TimedVisit> visits) {
  std::vector<Crossover::Point> points;
  while (!visits.empty()) {
    const auto end =
        std::find_if(visits.begin(), visits.end(), [&](const TimedVisit& v) { return v.rows != visits[0].rows; });
    const auto of_rows = visits.first(static_cast<size_t>(end - visits.begin()));
    const bool is_line =
        std::any_of(of_rows.begin(), of_rows.end(), [&](const TimedVisit& v) { return v.keys != of_rows[0].keys; });
    if (is_line)
      points.push_back({of_rows[0].rows,
                        first_not_above(fit_line(of_rows, &TimedVisit::joint), fit_line(of_rows, &TimedVisit::alone))});
    visits = visits.subspan(of_rows.size());
  }
  return Crossover(std::move(points));
}

}  // namespace tessera
