#pragma once
// Sizes that the files of the CPU's attention share.

#include <cstdint>

namespace tessera::cpu {

constexpr int64_t kMaxPanel = 48;   // 3 vectors of 16 lanes
constexpr int64_t kKeyBlock = 128;  // S [128 × 48] f32 is 24 KB: it stays in the first-level cache with its block of V
constexpr int64_t kKeySpan = 8 * kKeyBlock;  // keys that are one softmax; those of several are merged
constexpr int64_t kFloatsPerLine = 16;

}  // namespace tessera::cpu
