#include "core/decimal.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <string_view>

#include "core/error.h"

namespace tessera {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr Wide kMost = Wide{1} << 62;

/// digits · 10^exponent; at most 17 digits.
struct Decimal {
  uint64_t digits = 0;
  int exponent = 0;
};

Decimal shortest_decimal(double value) {
  char text[32];
  const auto end = std::to_chars(std::begin(text), std::end(text), value, std::chars_format::scientific).ptr;
  const std::string_view spelled(text, static_cast<size_t>(end - text));  // 2.8e-01
  const size_t e = spelled.find('e');
  Decimal decimal;
  decimal.exponent = std::stoi(std::string(spelled.substr(e + 1)));
  for (const char c : spelled.substr(0, e))
    if (c != '.') decimal.digits = 10 * decimal.digits + static_cast<uint64_t>(c - '0');
  if (e > 1) decimal.exponent -= static_cast<int>(e) - 2;  // digits behind the point
  return decimal;
}

Wide ceil_of_ratio(Wide a, Wide b) { return a / b + (a % b != 0); }

}  // namespace

int64_t ceil_of_share(double value, int64_t count, int64_t divisor) {
  TS_CHECK(std::isfinite(value) && value >= 0 && count >= 0 && divisor >= 1 && divisor <= int64_t{1} << 56,
           "{} x {} / {}", value, count, divisor);
  Decimal decimal = shortest_decimal(value);
  Wide product = Wide{decimal.digits} * static_cast<Wide>(count);  // below 10^17 · 2^63 < 2^120
  const Wide by = static_cast<Wide>(divisor);
  for (; decimal.exponent > 0 && product > 0 && product / by < kMost; --decimal.exponent) product *= 10;
  // ⌈⌈a / b⌉ / 10⌉ is ⌈a / (10 b)⌉, so that one division after the other is exact.
  product = ceil_of_ratio(product, by);
  for (; decimal.exponent < 0 && product > 1; ++decimal.exponent) product = ceil_of_ratio(product, 10);
  return static_cast<int64_t>(std::min(product, kMost));
}

int64_t share_of(double value, int64_t count, Rounding rounding) {
  TS_CHECK(std::isfinite(value) && value >= 0 && count >= 0, "{} x {}", value, count);
  Decimal decimal = shortest_decimal(value);
  Wide halves = 2 * Wide{decimal.digits} * static_cast<Wide>(count);  // below 2^121; ⌊⌊a / b⌋ / 10⌋ is ⌊a / (10 b)⌋
  for (; decimal.exponent > 0 && halves > 0 && halves <= 2 * kMost; --decimal.exponent) halves *= 10;
  for (; decimal.exponent < 0; ++decimal.exponent) halves /= 10;
  if (rounding == Rounding::nearest) ++halves;  // ⌊x + 1/2⌋ is ⌊(⌊2x⌋ + 1) / 2⌋
  return static_cast<int64_t>(std::min(halves / 2, kMost));
}

int64_t quotient_of(int64_t count, double value, Rounding rounding) {
  TS_CHECK(std::isfinite(value) && value > 0 && count >= 0 && count <= int64_t{1} << 56, "{} / {}", count, value);
  if (value < 1) return static_cast<int64_t>(std::min(static_cast<double>(count) / value, 0x1p62));
  Decimal decimal = shortest_decimal(value);
  Wide above = static_cast<Wide>(count), below = decimal.digits;
  for (; decimal.exponent < 0; ++decimal.exponent) above *= 10;  // at most 16 times
  for (; decimal.exponent > 0 && below <= 2 * above; --decimal.exponent) below *= 10;
  if (rounding == Rounding::nearest) above = 2 * above + below, below *= 2;
  return static_cast<int64_t>(std::min(above / below, kMost));
}

}  // namespace tessera
