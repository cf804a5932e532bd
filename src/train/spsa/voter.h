#pragma once
// A machine's part of a round: what its losses say of its directions, in bytes.

#include <functional>
#include <span>

#include "data/packed_dataset.h"
#include "train/spsa/prober.h"
#include "train/spsa/run_header.h"

namespace tessera {

/// What one machine found out in a round.
struct Measured {
  std::vector<uint8_t> bytes;  // of its vote
  double loss = 0;             // mean, at the points around w (two sides) or at w (one side)
  int64_t scored = 0;          // tokens or examples that the losses are sums over
};

/// What one of its probes found.
struct Probed {
  std::vector<uint8_t> bytes;
  double loss = 0;  // its part of the mean
  int64_t scored = 0;
};
/// A vote of two-sided probes, in their order: however they were shared out, the sums are the same.
Measured measured_of(std::span<const Probed>);

class Voter {
 public:
  /// All outlive the voter.
  struct Inputs {
    const Context& ctx;
    const PackedDataset& data;
    const TrainConfig& train;
    const SpsaConfig& spsa;
    const RunHeader& header;
    Prober& prober;
    std::function<void()> between{};  // called behind each probe, of those that are measured one by one; may be empty
  };
  /// @param lane  of the machine: the Hadamard family counts by it
  Voter(const Inputs& in, uint32_t machine, uint32_t lane)
      : in_(in), machine_(machine), lane_(lane), objective_(objective_of(in.train.objective)) {}
  Voter(const Inputs& in, uint32_t machine) : Voter(in, machine, machine) {}

  /// @param unit  in force for votes of the round
  Measured measure(uint32_t round, int unit) const {
    return in_.spsa.sides == "one" ? one_sided(round, unit) : two_sided(round, unit);
  }
  /// One probe of two sides; in_.between is called behind it.
  Probed probe(uint32_t round, int unit, uint16_t probe) const;

 private:
  /// g = [ L(w + eps z; B) − L(w − eps z; B) ] / (2 eps), each probe on rows of its own.
  Measured two_sided(uint32_t round, int unit) const;
  /// g = [ L(w + eps z; B) − L(w; B) ] / eps, all probes of a round on the same rows;
  /// normalised: over the deviation of the losses.
  Measured one_sided(uint32_t round, int unit) const;
  /// The rows of a probe: a draw of its own from all rows, a function of (seed, round, machine, probe).
  std::vector<PackedBatch> batches_of(uint32_t round, uint16_t probe) const;
  Direction direction(uint32_t round, uint16_t probe) const {
    return direction_of(in_.header, round, machine_, lane_, probe);
  }

  Inputs in_;
  uint32_t machine_, lane_;
  const Objective& objective_;
};

}  // namespace tessera
