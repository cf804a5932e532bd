#include "core/minifloat.h"

#include <cmath>

namespace tessera {
namespace {

/// The byte of an integer that has one: 0 .. 16, or 8 .. 16 times a power of two.
uint8_t exact_byte(int32_t magnitude) {
  int e = 1;
  while (magnitude >> (e - 1) > 15) ++e;
  return static_cast<uint8_t>(magnitude < 8 ? magnitude : e << 3 | ((magnitude >> (e - 1)) - 8));
}

}  // namespace

uint8_t encode_vote(double g, int unit_exponent, double uniform) {
  if (!std::isfinite(g)) return kInvalidVote;
  const double a = std::ldexp(std::fabs(g), unit_exponent);  // infinite at worst: saturates
  int32_t magnitude = kLargestVote;
  if (a < kLargestVote) {
    const double step = a >= 16 ? std::ldexp(1.0, std::ilogb(a) - 3) : 1.0;
    const double steps = std::floor(a / step);  // exact: step is a power of two
    magnitude = static_cast<int32_t>((steps + (uniform < a / step - steps ? 1 : 0)) * step);
  }
  const uint8_t byte = exact_byte(magnitude);
  return byte != 0 && std::signbit(g) ? byte | 0x80 : byte;
}

}  // namespace tessera
