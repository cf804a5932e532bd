#pragma once
// A scheduled step as arrays: what a pass feeds, where its keys and values go, and what its rows attend to.

#include <span>
#include <vector>

#include "infer/crossover.h"
#include "infer/schedule.h"
#include "kernels/paged_attention.h"

namespace tessera {

/// Positions whose keys are one block of a softmax's sums (docs/determinism.md, "Attention").
constexpr int32_t kKeyBlock = 128;

/// What plans are made for.
struct PlanShape {
  int64_t heads, kv_heads, page_tokens;
  int threads;
  // Attention is cut at multiples of kKeyBlock positions, so that bits do not hang on what is shared; else where
  // nodes begin and end.
  bool deterministic = true;
  // Where it does not pay, each row below a node attends to its keys by itself: the same bits.
  Crossover crossover{};
};

/// Made once a step and read by every layer. A node of the tree is attended to by all rows below it at once,
/// where that pays:
///
///   positions   0         128        256             blocks of 128; node a holds 0 .. 199, its children what follows
///   a           |---------|------.                   block 0: all rows below a
///   b                     |      '---|-----          block 1: rows below b, its keys from a and b
///   c                     |      '--------|----      block 1: rows below c
struct StepPlan {
  std::vector<int32_t> ids, positions;  // of each row
  std::vector<int32_t> pages, entries;  // of each row: the page of the first layer and head, and the place in it
  std::vector<int32_t> first_rows;      // of each work, and behind the last one
  std::vector<int32_t> tables, lengths;
  std::vector<KeyRun> runs;
  std::vector<AttentionVisit> visits;
  PagedPlan tiles;
};

/// @param prompts  fed tokens of each request
/// @param tails    new tokens of each tail, by its number in the schedule
StepPlan plan_step(const Schedule&, std::span<const Work>, std::span<const std::span<const int32_t>> prompts,
                   std::span<const std::vector<int32_t>> tails, const PlanShape&);

}  // namespace tessera
