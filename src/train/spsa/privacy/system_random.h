#pragma once
// Random numbers that nobody else can make: of the operating system, never of a run's seed.

#include <array>
#include <cstddef>
#include <cstdint>

namespace tessera {

class SystemRandom {
 public:
  /// In [0, 1): 53 bits.
  double uniform();
  /// Mean 0 and deviation 1, by Box and Muller in f64.
  double normal();

 private:
  uint64_t word();
  std::array<uint64_t, 64> words_{};
  std::size_t used_ = 64;
};

}  // namespace tessera
