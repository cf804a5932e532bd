#pragma once
// From how many keys on rows that share them attend to them jointly: where one visit of all rows is quicker than one
// visit of each. What is computed, kept and answered is the same either way; times decide about times alone.

#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

/// Seconds of attention of `rows` rows over the same `keys` keys, in both forms.
struct TimedVisit {
  int64_t rows, keys;
  double joint, alone;  // one visit of all rows; a visit of each row
};

class Crossover {
 public:
  static constexpr int64_t kNever = INT64_MAX;

  /// With so many rows the joint form is taken from `prefix` keys on.
  struct Point {
    int64_t rows = 0, prefix = 0;
    bool operator==(const Point&) const = default;
  };

  /// @param points  ascending by rows. Between two numbers of rows the lower one stands, before the first the first,
  ///   behind the last the last. Without points the joint form is always taken.
  explicit Crossover(std::vector<Point> points = {}) : points_(std::move(points)) {}
  static Crossover always() { return Crossover(); }
  static Crossover never() { return Crossover({{1, kNever}}); }

  bool pays(int64_t rows, int64_t keys) const;
  const std::vector<Point>& points() const { return points_; }

 private:
  std::vector<Point> points_;
};

/// For each number of rows both forms are fitted with  t = c0 + c1 · keys,  c0 >= 0, by least squares of relative
/// errors: with the rows given, items are a constant, and bytes and FLOP are in proportion to the keys. The point is
/// the smallest number of keys from which on the joint form is predicted not to be slower.
/// @param visits  ascending by rows; rows with fewer than two numbers of keys have no point
Crossover fit_crossover(std::span<const TimedVisit> visits);

}  // namespace tessera
