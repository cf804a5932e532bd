#pragma once
// Where a task of attention over pages keeps its numbers: planned by the shape of a head alone.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cpu/attention_parts.h"
#include "kernels/paged_attention.h"

namespace tessera::cpu {

constexpr int64_t kGroup = 24;      // queries whose scores with a block wait in the first-level cache
constexpr int64_t kMostLanes = 16;  // what is read in vectors has room for a whole one behind its end
constexpr int64_t kScoreStride = kKeyBlock + kMostLanes;  // rows 512 bytes apart would share few sets of the cache

/// Queries of the largest tile.
inline int64_t tile_queries(int64_t group) { return max_tile_rows(group) * group; }

/// One thread's numbers. The queries of a tile stand row by row, and in a row by their heads.
struct PagedScratch {
  float *q, *acc;         // [queries, head_dim] times the scale; summed over a span
  float *max, *sum;       // [queries] the greatest score and Σ exp(score − max) of a span
  int32_t *low, *bound;   // [queries] it sees positions low < p <= bound
  float *inverse, *part;  // [queries] 1 / sum, log-sum-exp of a span
  float *before, *lse;    // [queries] log-sum-exp of the spans before, and with this one
  float *kept, *taken;    // [queries] factors of their merge
  float* turned_k;        // [head_dim, kScoreStride] a block of keys, an entry a column
  float *k, *v;           // [kKeyBlock, head_dim] copies of a block
  float* scores;          // [kGroup, kScoreStride]
  float* added;           // [kGroup, head_dim]
  int32_t* position;      // [kScoreStride] of the entries of a block
  float* bias;            // [kScoreStride]
  int64_t floats = 0;     // all of them

  PagedScratch(float* memory, int64_t head_dim, int64_t queries) {
    const int64_t room = queries + kMostLanes;
    const auto take = [&](int64_t count, auto*& place) {
      if (memory != nullptr) place = reinterpret_cast<std::remove_reference_t<decltype(place)>>(memory + floats);
      floats += (count + kFloatsPerLine - 1) / kFloatsPerLine * kFloatsPerLine;
    };
    for (float** rows : {&q, &acc}) take(queries * head_dim, *rows);
    for (int32_t** numbers : {&low, &bound}) take(room, *numbers);
    for (float** numbers : {&max, &sum, &inverse, &part, &before, &lse, &kept, &taken}) take(room, *numbers);
    take(head_dim * kScoreStride, turned_k);
    for (float** rows : {&k, &v}) take(kKeyBlock * head_dim, *rows);
    take(kGroup * kScoreStride, scores);
    take(kGroup * head_dim, added);
    take(kScoreStride, position);
    take(kScoreStride, bias);
  }
};

/// Of one thread.
inline int64_t paged_floats(int64_t head_dim, int64_t group) {
  return PagedScratch(nullptr, head_dim, tile_queries(group)).floats;
}

}  // namespace tessera::cpu
