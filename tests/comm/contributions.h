#pragma once
// Numbers and bytes that each rank of a test brings, which every other rank can work out.

#include <cmath>
#include <cstring>
#include <vector>

#include "core/random.h"

namespace tessera::test {

/// Magnitudes from 1e-12 to 1e12 with both signs: a sum in f32, or in another order, gives other bits.
inline double adversarial(int rank, int64_t i) {
  const uint64_t bits = mix64(mix64(rank + 1) ^ static_cast<uint64_t>(i));
  const double magnitude = std::pow(10.0, static_cast<double>(bits % 25) - 12.0);
  return (bits >> 40 & 1 ? -magnitude : magnitude) * (1.0 + to_unit(static_cast<uint32_t>(bits >> 8)));
}

template <class T> std::vector<T> contribution(int rank, int64_t count) {
  std::vector<T> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<T>(adversarial(rank, i));
  return values;
}

template <class T> std::vector<T> rank_ordered_sum(int ranks, int64_t count) {
  std::vector<T> sums(count);
  for (int64_t i = 0; i < count; ++i) {
    double sum = static_cast<T>(adversarial(0, i));
    for (int r = 1; r < ranks; ++r) sum += static_cast<T>(adversarial(r, i));
    sums[i] = static_cast<T>(sum);
  }
  return sums;
}

template <class T> int64_t differing_bits(const std::vector<T>& a, const std::vector<T>& b) {
  int64_t differ = a.size() != b.size();
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) differ += std::memcmp(&a[i], &b[i], sizeof(T)) != 0;
  return differ;
}

inline std::vector<std::byte> bytes_of(int rank, size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i)
    bytes[i] = static_cast<std::byte>(mix64(static_cast<uint64_t>(rank) * 1000003 + i));
  return bytes;
}

}  // namespace tessera::test
