#pragma once
// What a recipe says of simulated nodes.

#include "core/fields.h"

namespace tessera {

/// [simulate]: many loose nodes in one process, by simulated time (job = "simulate").
struct SimulateConfig {
  std::optional<int64_t> nodes;
  double latency_ms = 50, jitter_ms = 20, loss = 0.01, rate_mbit = 10, forward_seconds = 0.05;
  double churn = 0.001, hostile = 0;
  int64_t rounds = 200, seed = 1;

  void visit(Fields& v);
};

/// Nodes up to which probes are those of the recipe's model; more of them vote on a quadratic.
constexpr int64_t kMostWithModel = 100;
/// Nodes up to which all are whole, and how many are where there are more.
constexpr int64_t kWholeNodes = 8;

}  // namespace tessera
