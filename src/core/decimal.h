#pragma once
#include <cstdint>

namespace tessera {

/// ⌈value · count / divisor⌉, exactly, of the decimal that is the shortest spelling of `value`: of 0.28, which no double is,
/// 28/100. No more than 2^62.
/// @param value    finite, at least 0
/// @param count    at least 0
/// @param divisor  1 to 2^56
int64_t ceil_of_share(double value, int64_t count, int64_t divisor = 1);

}  // namespace tessera
