#pragma once
// Transports of shared-seed training: one totally ordered log for all machines, and votes on their way to it. Five
// calls; no assumption about MPI, and none about who is there.

#include <chrono>
#include <filesystem>
#include <memory>

#include "comm/communicator.h"
#include "steplog/record.h"

namespace tessera {

class LogEngine {
 public:
  virtual ~LogEngine() = default;
  /// Sends a vote to all, this machine included. May be lost.
  virtual void publish_vote(std::span<const std::byte> vote) = 0;
  /// Votes that arrived since the last call, in no order; duplicates are possible.
  virtual std::vector<Bytes> take_votes() = 0;
  // Conflict is no error: another record has the place, and read() has it.
  enum class Append { won, conflict };
  /// Compare-and-set: the record becomes number `expected` of the log, unless the log has moved on.
  virtual Append append(uint64_t expected, std::span<const std::byte> record) = 0;
  /// Records from number `from` on, in order; empty when there is none yet.
  virtual std::vector<Bytes> read(uint64_t from) = 0;
  /// Returns when there may be a new vote or record, at the latest after `timeout`.
  virtual void wait(std::chrono::milliseconds timeout) = 0;

  /// Payload bytes this machine sent and received; under MPI with the 8 bytes of each message's length.
  struct Traffic {
    int64_t up = 0, down = 0;
  };
  const Traffic& traffic() const { return traffic_; }

  /// How an engine works, where those who drive it have to know: the same for all machines of a run.
  struct Manners {
    /// each: every machine has the same votes and forms the same record of them, on the terms that machine 0 sent with
    /// its vote. first_there: one machine does, on its own terms, and the others let it:
    /// machine k waits for those before it.
    enum class Packer { each, first_there } who_packs;
    /// copies: append() is to a copy of this machine's own, so all append the same. one_log: machines append to one
    /// log, and who comes second reads what the first wrote.
    enum class Order { copies, one_log } total_order;
    /// Whether a machine that is asked to stop says so in its vote, and all stop behind the same round; else it leaves
    /// by itself, in a round that need not be done, and the others go on or wait.
    bool stop_in_votes;
    /// from_machines: the machines hand each other what they lack before there is an engine, which begins behind that.
    /// from_log: the engine's own log outlives them and is read.
    enum class CatchUp { from_machines, from_log } catch_up;
    int64_t bytes_of_message;  // that a vote takes on its way beyond its own
  };

 protected:
  Traffic traffic_;
};

/// Ranks of one communicator: wait() is one all-gather of what each rank published since the last; every rank then has
/// the same votes in rank order, forms the same record and appends it to its own copy: append() and read()
/// do not communicate.
/// @param log_size  records that exist already (all ranks hold the same number)
std::unique_ptr<LogEngine> make_mpi_engine(Communicator&, uint64_t log_size);

/// Processes of one host that share `folder`: the ordered log is a StepLog there, written under flock; votes are small
/// files' lines appended under flock to votes/<seed round>.votes, removed some rounds later.
/// @param header_json  the run header; the first process makes the log with it, the others must have the same
std::unique_ptr<LogEngine> make_file_engine(const std::filesystem::path& folder, const std::string& header_json);

}  // namespace tessera
