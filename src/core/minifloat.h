#pragma once
// The byte of a vote: an integer minifloat S1E4M3, sign, 4-bit e, 3-bit k.
//   e = 0: k      e >= 1: (8 + k) << (e − 1)        0 .. 15 exact, then 8 steps an octave to 245,760
// 0x80 says "no vote": a loss that is not finite, or an abstention.

#include <cstdint>

namespace tessera {

constexpr uint8_t kInvalidVote = 0x80;
constexpr int32_t kLargestVote = 245760;

/// The integer of a byte; 0 for kInvalidVote.
constexpr int32_t decode_vote(uint8_t byte) {
  const int32_t e = byte >> 3 & 15, k = byte & 7;
  const int32_t magnitude = e == 0 ? k : (8 + k) << (e - 1);
  return byte & 0x80 ? -magnitude : magnitude;
}

/// The byte of g in units of u = 2^-unit_exponent, rounded up with probability equal to the fraction between its two
/// neighbours: unbiased up to the saturation at 245,760 u.
/// @param uniform  a draw from [0, 1); what is drawn needs no agreement, the byte alone is shared
/// @return kInvalidVote when g is not finite
uint8_t encode_vote(double g, int unit_exponent, double uniform);

}  // namespace tessera
