#pragma once
// Gates by one-byte SPSA: forward passes alone. The shared-seed training of train/spsa/ on a pool of one slot, whose
// log is what the same command goes on from.

#include <optional>

#include "compress/gate_loss.h"
#include "compress/gate_trainer.h"
#include "model/parameter_pool.h"
#include "steplog/step_log.h"
#include "train/spsa/packer.h"

namespace tessera {

/// Probes of a step.
constexpr int64_t kGateProbes = 8;

/// The slot is `fold.theta`: one number a gate, start 1. A step is a round of eight probes. Each measures, on rows of
/// its own, loss and penalty a way along a random direction z and the same way back, from t = min(theta, 1) on:
///   vote = (J(t + 0.1 z) − J(t − 0.1 z)) / 0.2,   J = loss a scored token + penalty, at clamped thetas
/// and the record of the eight votes, a byte each, moves theta by Adam at fold.gate_lr. Ranks share the probes, and all
/// of them apply the record: theta has the same bits for any number of ranks. theta, mu, and all else of the state are
/// functions of the records alone.
class SpsaGates final : public GateTrainer {
 public:
  /// @param goes_on  whether a log that is there is this training's; otherwise it is removed
  SpsaGates(const StageInputs&, const GateUnits&, bool goes_on);

  bool take_step() override;
  bool keeps_steps() const override { return true; }

 private:
  struct Probe {
    double vote = 0, loss = 0;  // loss: mean of both sides, a scored token
  };
  struct Round {
    std::vector<Probe> probes;
    bool stop = false;
  };
  RunHeader header() const;
  void open_log(bool goes_on);
  void follow(std::span<const std::byte> record);
  void end_log();
  Probe measure(int64_t probe) const;
  std::vector<double> theta_at(const Direction& z, double way) const;
  Round round() const;
  void for_each_batch(const std::function<void(const PackedBatch&)>&) const;

  ParameterPool pool_;
  std::optional<Replica> replica_;
  std::optional<StepLog> log_;  // rank 0's
  RunId run_;
  ChainTip tip_;
  bool has_ended_ = false;  // the log
};

/// Bytes of the arena that a pass of a probe takes.
int64_t plan_spsa_gates(const StageSizes&);

}  // namespace tessera
