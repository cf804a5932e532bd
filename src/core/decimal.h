#pragma once
// Exact arithmetic on the decimals that a recipe spells, where doubles would be off by one row or step.

#include <cstdint>

namespace tessera {

/// ⌈value · count / divisor⌉, exactly, of the decimal that is the shortest spelling of `value`: of 0.28, which no
/// double is, 28/100. No more than 2^62.
/// @param value    finite, at least 0
/// @param count    at least 0
/// @param divisor  1 to 2^56
int64_t ceil_of_share(double value, int64_t count, int64_t divisor = 1);

enum class Rounding { down, nearest };
/// value · count, exactly, of the same decimal, rounded: of 0.35 and 10 to the nearest, 4. Halves are rounded up.
/// @param value  finite, at least 0
/// @param count  at least 0. No more than 2^62
int64_t share_of(double value, int64_t count, Rounding);

/// count / value, exactly, of the same decimal: 535 / 1.07 is 500, which doubles just miss. Halves are rounded up.
/// @param value  above 0; by one below 1 it is divided in doubles. No more than 2^62
/// @param count  0 to 2^56
int64_t quotient_of(int64_t count, double value, Rounding);

}  // namespace tessera
