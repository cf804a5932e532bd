#pragma once
// Is a backward pass the derivative of its forward pass? Central differences in f64.
//
//   Tensor x = ..., dx = ...;                                                 // f64
//   backward(..., dx);                                                        // of the sum that `loss` returns
//   EXPECT_LE(test::gradient_error(x.as<double>(), dx.as<double>(), loss), 1e-6);

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <span>

namespace tessera::test {

/// ||numeric − analytic|| / ||analytic|| over the element of the largest gradient and `samples` others drawn at random.
/// The derivative is taken to fourth order,
///   f' = (8 (f(+h) − f(−h)) − (f(+2h) − f(−2h))) / 12 h  +  O(h⁴),
/// which leaves h large enough that f's rounding does not show. `values` come back as they were.
inline double gradient_error(std::span<double> values, std::span<const double> grads,
                             const std::function<double()>& loss, int samples = 6, uint32_t seed = 1) {
  constexpr double h = 2e-4;
  std::mt19937 random(seed);
  double difference = 0, norm = 0;
  for (int s = 0; s <= samples; ++s) {
    const size_t i =
        s == 0 ? static_cast<size_t>(std::max_element(grads.begin(), grads.end(),
                                                      [](double a, double b) { return std::abs(a) < std::abs(b); }) -
                                     grads.begin())
               : random() % values.size();
    const double value = values[i];
    const auto at = [&](double offset) {
      values[i] = value + offset;
      return loss();
    };
    const double numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
    values[i] = value;
    difference += (numeric - grads[i]) * (numeric - grads[i]);
    norm += grads[i] * grads[i];
  }
  return std::sqrt(difference) / std::max(std::sqrt(norm), 1e-30);
}

}  // namespace tessera::test
