#pragma once
// A plan made with a counted model against what passes of a model that is there take.

#include <gtest/gtest.h>

#include <algorithm>

#include "support/engine.h"
#include "train/backprop.h"

namespace tessera::test {

/// Scratch of the widest batches, of one long document a row and of short ones. Scoring takes what is planned to the
/// byte, a backward pass no more, and at least ten elevenths of it.
inline void expect_planned_scratch(Model& counted, Model& held) {
  constexpr int64_t kRows = 3, kLength = 48;
  constexpr int kThreads = 2;
  const auto peak = [&](const auto& pass) {
    int64_t most = 0;
    for (const int64_t document : {kLength, int64_t{2}}) {
      const Engine engine("cpu", int64_t{16} << 20, kThreads);
      held.assemble(engine.ctx);
      pass(engine.ctx, widest_batch(kRows, kLength, document));
      most = std::max(most, engine.arena.peak_bytes());
    }
    return most;
  };
  EXPECT_EQ(plan_score_bytes(counted, kRows, kLength, kThreads),
            peak([&](const Context& ctx, const PackedBatch& batch) { score_batch(ctx, held, batch); }));
  for (const bool checkpointed : {false, true}) {
    const BackpropOptions options{.checkpoint_activations = checkpointed,
                                  .dropout = {.on = true, .seed = 1, .step = 1}};
    const int64_t planned = plan_backprop_bytes(counted, kRows, kLength, kThreads, options);
    const int64_t taken =
        peak([&](const Context& ctx, const PackedBatch& batch) { backprop_batch(ctx, held, batch, options); });
    EXPECT_LE(taken, planned) << checkpointed;
    EXPECT_LE(static_cast<double>(planned), 1.1 * static_cast<double>(taken)) << checkpointed;
  }
}

}  // namespace tessera::test
