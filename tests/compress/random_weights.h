#pragma once
// Drawn weights and moments of inputs, for tests of what is computed from both.

#include <random>
#include <vector>

#include "core/tensor.h"

namespace tessera::test {

inline Tensor random_weight(std::mt19937_64& random, int64_t out, int64_t in, DType dtype = DType::f32) {
  std::normal_distribution<double> normal;
  Tensor weight({out, in}, dtype);
  for (int64_t i = 0; i < out * in; ++i) set_element(weight, i, normal(random));
  return weight;
}

inline std::vector<double> random_moments(std::mt19937_64& random, int64_t channels, uint64_t most) {
  std::vector<double> sigma;
  for (int64_t j = 0; j < channels; ++j) sigma.push_back(0.01 + static_cast<double>(random() % most));
  return sigma;
}

inline double at(const ConstView& weight, int64_t i, int64_t j) { return element(weight, i * weight.cols() + j); }

}  // namespace tessera::test
