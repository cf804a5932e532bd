#pragma once
// Tests that try things at random: with which seed, and how many times.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string_view>

namespace tessera::test {

/// Whether TESSERA_SEED asks for the one case of that seed again.
inline bool repeats_a_seed() { return std::getenv("TESSERA_SEED") != nullptr; }

/// TESSERA_SEED, else a new one; printed, so that what failed can be repeated.
inline uint32_t random_seed() {
  const char* given = std::getenv("TESSERA_SEED");
  const uint32_t seed = given ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
  std::printf("TESSERA_SEED=%u\n", seed);
  return seed;
}

/// TESSERA_LONG=1: as many cases as the test is meant for, not a tenth of them.
inline bool tests_are_long() {
  const char* is_long = std::getenv("TESSERA_LONG");
  return is_long && is_long == std::string_view("1");
}

}  // namespace tessera::test
