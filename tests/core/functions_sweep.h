#pragma once
// The sweeps of docs/functions.md: what every function gives for many arguments, as one number. The same source is
// compiled without optimisation and with all of it, for the machine at hand.

#include <cstdint>
#include <map>
#include <string>

namespace tessera::test {

/// FNV-1a of the results' bytes (little-endian), for each function. f32: arguments with the bits 0, step, 2 step, ...
/// below 2^32. f64: `count` arguments of each kind; docs/functions.md says which.
using SweepHashes = std::map<std::string, uint64_t>;
SweepHashes sweep_as_tests_are(uint64_t step, uint64_t count);
SweepHashes sweep_unoptimised(uint64_t step, uint64_t count);
SweepHashes sweep_optimised(uint64_t step, uint64_t count);

/// The i-th argument: any bits, or evenly spread over ± reach / 2.
double any_bits(uint64_t i);
double spread(uint64_t i, double reach);

}  // namespace tessera::test
