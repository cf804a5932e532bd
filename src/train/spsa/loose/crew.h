#pragma once
// Several ranks of one job that are one machine of a loose run. Rank 0 has the engine, the log and the machine's
// number, and decides; the others follow its weights and measure their share of the probes:
//
//   rank 0     measure round t  ->  (wait, pack, read, apply)  ->  the step is done
//   others     the records that rank 0 has applied since, then the same
//
// Probe s is measured by rank s mod R as one rank alone would: the vote has the same bytes for any number of ranks.

#include "comm/communicator.h"
#include "train/spsa/replica.h"
#include "train/spsa/voter.h"
#include "train/stepper.h"
#include "train/trainer_inputs.h"

namespace tessera {

struct SpsaInputs;

/// What rank 0 tells the others.
struct CrewOrder {
  /// left: a stop was asked for before the step was done. level: nothing but the weights.
  enum class Kind : uint8_t { measure, step_done, left, level } kind = Kind::level;
  bool has_state = false;  // what follows is a replica's state, and not records
  bool stop = false;       // this and the next four: of a step that is done, as in StepReport
  float lr = 0;
  double loss = 0;
  int64_t rows = 0, scored = 0;
  uint32_t round = 0, machine = 0, lane = 0;  // of the vote that is measured
  int32_t unit = 0;
  int64_t machines = 1;  // of the run, when this job has caught up with it
};

/// Rank 0's side. Every call but note() is a collective.
class CrewLeader {
 public:
  /// Both outlive it.
  CrewLeader(Communicator& world, Replica& replica) : world_(world), replica_(replica) {}

  /// The replica has applied a record: the others will, before their next order.
  void note(const Bytes& record) { records_.push_back(record); }
  /// The replica was rebuilt: the others take its state.
  void note_state() { has_new_state_ = true; }

  /// The replica has caught up: the others begin where it is. @param machines  that have a lane, at least 1
  void begin(int64_t machines) { send({.kind = CrewOrder::Kind::level, .machines = machines}); }
  /// @param voter  of that machine and lane
  Measured measure(const Voter& voter, uint32_t round, int unit, uint32_t machine, uint32_t lane);
  void end_step(const StepReport&);
  void leave() { send({.kind = CrewOrder::Kind::left}); }
  /// @throws UserError when the ranks' weights are not the same
  void finish(const StateDigest& digest);

 private:
  void send(CrewOrder);

  Communicator& world_;
  Replica& replica_;
  std::vector<Bytes> records_;  // that the others lack
  bool has_new_state_ = true;
};

/// The vote's bytes and loss, of the shares that all ranks measure at once: a collective.
Measured measure_together(Communicator&, const Voter&, const RunHeader&, uint32_t round, int unit);

/// The step of ranks 1 and following.
std::unique_ptr<Stepper> make_crew_stepper(const TrainerInputs&, const SpsaInputs&, const SpsaConfig&);

}  // namespace tessera
