#include "core/random.h"

#include <bit>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/functions/functions.h"

namespace tessera {

std::vector<int32_t> draw_distinct(uint64_t key, int64_t n, int64_t q) {
  TS_CHECK(0 <= q && q <= n, "cannot draw {} distinct numbers of {}", q, n);
  std::vector<int32_t> numbers(static_cast<size_t>(n));
  std::iota(numbers.begin(), numbers.end(), 0);
  for (int64_t c = 0; c < q; ++c) {
    const auto j = c + static_cast<int64_t>(draw_below(key, static_cast<uint64_t>(c), static_cast<uint64_t>(n - c)));
    std::swap(numbers[c], numbers[j]);
  }
  numbers.resize(static_cast<size_t>(q));
  return numbers;
}

uint32_t RandomStream::bits(uint64_t index) const {
  const uint64_t block = index / 4;
  const auto words = philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                                 static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)},
                                {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
  return words[index % 4];
}

double RandomStream::normal(uint64_t index, Rules rules) const {
  // 1 - u is in (0, 1], so the logarithm is finite.
  const double u = 1.0 - static_cast<double>(uniform(2 * index));
  const double angle = 2.0 * std::numbers::pi * static_cast<double>(uniform(2 * index + 1));
  if (rules < Rules::third) return std::sqrt(-2.0 * std::log(u)) * std::cos(angle);
  return std::sqrt(-2.0 * functions::log(u)) * functions::cos(angle);
}

uint64_t permute_index(uint64_t key, uint64_t n, uint64_t index) {
  TS_CHECK(index < n, "index {} is not below {}", index, n);
  if (n == 1) return 0;
  const int half = (std::bit_width(n - 1) + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  do {  // cycle walking: the network permutes [0, 4^half), fewer than 4 n numbers
    uint64_t left = index >> half, right = index & mask;
    for (uint64_t round = 0; round < 4; ++round)
      left = std::exchange(right, left ^ (mix64(hash_key({key, round}) ^ right) & mask));
    index = left << half | right;
  } while (index >= n);
  return index;
}

uint64_t fnv1a(const void* data, size_t bytes, uint64_t h) {
  for (size_t i = 0; i < bytes; ++i) h = (h ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3ull;
  return h;
}

}  // namespace tessera
