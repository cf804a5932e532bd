#pragma once
// Fold plans drawn at random, without fault; the sizes of a real model to count them with.

#include <array>
#include <random>

#include "model/fold/plan_shapes.h"
#include "model/model_config.h"
#include "support/tiny_model.h"

namespace tessera::test {

/// SmolLM2-135M, of which the method's worked example is.
inline ModelShapes smollm2_shapes() {
  return shapes_of(weight_specs(parse_model_config(to_json({.vocab_size = 49152,
                                                            .hidden_size = 576,
                                                            .intermediate_size = 1536,
                                                            .layers = 30,
                                                            .heads = 9,
                                                            .kv_heads = 3,
                                                            .head_dim = 64,
                                                            .tied = true}),
                                                   "SmolLM2-135M")));
}

inline FoldPlan random_fold_plan(std::mt19937_64& random, int64_t most_layers = 24) {
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  FoldPlan plan;
  plan.base = {.fingerprint = below(2) ? "9f31ü\"\\" : "", .layers = 1 + below(most_layers), .model_type = "llama"};
  const int64_t kept = below(plan.base.layers);  // one block stays in any case
  for (int64_t block = 0; block < plan.base.layers; ++block)
    if (block != kept && below(4) == 0) plan.removed.push_back(block);
  int64_t lost = 0;  // of the blocks of the group that is being filled: 0 or 1 is a half, any other nothing
  for (const int64_t block : retained_blocks(plan.base.layers, plan.removed)) {
    if (plan.groups.empty() || below(2)) {
      plan.groups.emplace_back();
      lost = below(10);
    }
    plan.groups.back().blocks.push_back(block);
    if (lost < 2) plan.removed_halves.push_back({block, static_cast<BlockHalf>(lost)});
  }
  for (FoldGroup& group : plan.groups) {
    const auto size = static_cast<int64_t>(group.blocks.size());
    if (size == 1)
      group.values = below(4) ? GroupValues::own : GroupValues::trained;
    else
      group.values = std::array{GroupValues::own, GroupValues::mean, GroupValues::wmean}[static_cast<size_t>(below(3))];
    if (group.values == GroupValues::own || group.values == GroupValues::trained)
      group.parent = group.blocks[static_cast<size_t>(below(size))];
  }
  plan.child.level = static_cast<ChildLevel>(below(5));
  if (plan.child.level >= ChildLevel::lora) plan.child.rank = 1 + below(1024);
  if (below(2))
    plan.history = Json::object()
                       .set("selector", "gates")
                       .set("bi", Json::Array{0.1, -0.0, 1e-300, 3})
                       .set("nested", Json::object().set("ü", Json::object()));
  return plan;
}

}  // namespace tessera::test
