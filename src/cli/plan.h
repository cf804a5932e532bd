#pragma once
// What a job will take: memory a rank, traffic a step.

#include "cli/workspace.h"

namespace tessera {

/// Bytes a rank needs: what it owns, what it shares with the ranks of its node, and what a step takes.
struct MemoryPlan {
  int64_t mapped, weights_and_gradients, optimizer, activations, assembled;
  int64_t owned() const { return weights_and_gradients + optimizer + activations + assembled; }
};
MemoryPlan plan_memory(const JobInputs&, Model&);

/// Numbers of the dense model: one a weight, adapters apart.
int64_t dense_parameters(Model&);

/// Bytes of weights, gradients and the optimizer's state: as they are held, and as they would be with a number for each weight.
struct Footprint {
  int64_t held, dense;
};
Footprint footprint(Model&, const MemoryPlan&);

/// Payload that a rank hands to collectives in a step: its gradients, or its vote (19 bytes, the probes', and the loss;
/// under MPI 8 of its length).
int64_t wire_bytes_per_step(const JobInputs&, Model&);

std::string megabytes(int64_t bytes);

}  // namespace tessera
