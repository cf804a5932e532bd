#include "infer/draws.h"

#include <array>

#include "core/random.h"

namespace tessera {
namespace {

constexpr uint64_t kSamplingStream = 0x53414d504c45;  // keeps these draws apart from those of training

uint64_t hash_of(std::span<const int32_t> ids) {
  uint64_t hash = fnv1a(nullptr, 0);
  for (const int32_t id : ids) {
    const auto bits = static_cast<uint32_t>(id);
    const std::array<uint8_t, 4> little_endian = {static_cast<uint8_t>(bits), static_cast<uint8_t>(bits >> 8),
                                                  static_cast<uint8_t>(bits >> 16), static_cast<uint8_t>(bits >> 24)};
    hash = fnv1a(little_endian.data(), little_endian.size(), hash);
  }
  return hash;
}

}  // namespace

double draw_uniform(uint64_t seed, int64_t sample, int64_t token) {
  const RandomStream stream(seed, hash_key({kSamplingStream, static_cast<uint64_t>(sample)}));
  const auto first = 2 * static_cast<uint64_t>(token);
  // 53 bits, as many as a double in [0.5, 1) has: 27 and 26 of two words.
  const uint64_t high = stream.bits(first) >> 5, low = stream.bits(first + 1) >> 6;
  return static_cast<double>((high << 26) | low) * 0x1p-53;
}

uint64_t default_seed(uint64_t run_seed, const std::string& custom_id) {
  return hash_key({run_seed, fnv1a(custom_id.data(), custom_id.size())});
}

uint64_t default_seed(uint64_t run_seed, std::span<const int32_t> prompt, int64_t earlier) {
  return hash_key({run_seed, hash_of(prompt), static_cast<uint64_t>(earlier)});
}

}  // namespace tessera
