//   byte      minifloat of g in units of 2^-unit, rounded up or down at random so that its mean is g
//   sign      the codes of +256 and −256 units, or 0: read as bytes are
//   float32   g itself; read as a multiple of 2^-14, since sums are of integers

#include "train/spsa/vote_codec.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/direction.h"
#include "core/minifloat.h"

namespace tessera {
namespace {

constexpr uint8_t kPlus = 0x30, kMinus = 0xb0;  // +256 and -256
constexpr double kLargestFixed = 1 << 23;

}  // namespace

std::optional<int32_t> read_vote(const RunHeader& header, std::span<const uint8_t> bytes) {
  if (header.votes != VoteKind::float32) {
    if (bytes[0] == kInvalidVote) return std::nullopt;
    return decode_vote(bytes[0]);
  }
  float g = 0;
  std::memcpy(&g, bytes.data(), sizeof(g));
  if (!std::isfinite(g)) return std::nullopt;
  const double fixed = std::rint(std::ldexp(static_cast<double>(g), header.unit_of(0)));
  return static_cast<int32_t>(std::clamp(fixed, -kLargestFixed, kLargestFixed));
}

int64_t valid_votes(const RunHeader& h, std::span<const uint8_t> bytes) {
  int64_t valid = 0;
  const auto width = static_cast<size_t>(h.bytes_per_probe());
  for (size_t i = 0; i + width <= bytes.size(); i += width) valid += read_vote(h, bytes.subspan(i, width)).has_value();
  return valid;
}

void write_vote(const RunHeader& header, double g, int unit, double draw, std::vector<uint8_t>& bytes) {
  if (header.votes == VoteKind::float32) {
    const auto value = static_cast<float>(g);
    const auto* raw = reinterpret_cast<const uint8_t*>(&value);
    bytes.insert(bytes.end(), raw, raw + sizeof(value));
  } else if (header.votes == VoteKind::sign) {
    // A sign vote uses two codes of the byte, of equal size: records and kernels need no case for it.
    bytes.push_back(!std::isfinite(g) ? kInvalidVote : g > 0 ? kPlus : g < 0 ? kMinus : 0);
  } else {
    bytes.push_back(encode_vote(g, unit, draw));
  }
}

void write_vote(const RunHeader& header, double g, int unit, uint32_t round, uint32_t machine, uint16_t probe,
                std::vector<uint8_t>& bytes) {
  // The draw for stochastic rounding is a function of machine, probe and round: a vote that is measured again after a
  // kill has the same bytes.
  const auto words = philox4x32({machine, probe, kRoundingStream, round},
                                {static_cast<uint32_t>(header.seed), static_cast<uint32_t>(header.seed >> 32)});
  write_vote(header, g, unit, static_cast<double>(words[0]) * 0x1p-32, bytes);
}

}  // namespace tessera
