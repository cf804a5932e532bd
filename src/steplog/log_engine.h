#pragma once
// Transports of shared-seed training: one totally ordered log for all machines, and votes on their way to it. Five
// calls; no assumption about MPI, and none about who is there. What only engines for loose nodes have beyond these has
// a default here that does nothing.

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

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
  // Conflict is no error: another record has the place, and read() has it. unknown, of engines over a network alone: no
  // answer; whether the record is there shows when the engine answers again: append the same bytes once more, or read.
  enum class Append { won, conflict, unknown };
  /// Compare-and-set: the record becomes number `expected` of the log, unless the log has moved on.
  virtual Append append(uint64_t expected, std::span<const std::byte> record) = 0;
  /// Records from number `from` on, in order; empty when there is none yet.
  virtual std::vector<Bytes> read(uint64_t from) = 0;
  /// Returns when there may be a new vote or record, at the latest after `timeout`.
  virtual void wait(std::chrono::milliseconds timeout) = 0;

  /// A message and the node that sent it, as the engine has checked it; empty where the engine knows no nodes.
  struct Sent {
    std::string node;
    Bytes bytes;
  };
  /// take_votes() with the nodes: call one of the two.
  virtual std::vector<Sent> take_sent_votes() {
    std::vector<Sent> sent;
    for (Bytes& vote : take_votes()) sent.push_back({{}, std::move(vote)});
    return sent;
  }
  /// Sends a control message (steplog/control_message.h) to all, this machine included. JOIN and LEAVE are kept by the
  /// engine for those who come later; a HAVE reaches who is there. May be lost: say it again when nothing answers.
  virtual void publish_control(std::span<const std::byte>) {}
  /// Control messages since the last call; the kept ones in the engine's order, from its first one on. Duplicates are
  /// possible.
  virtual std::vector<Sent> take_controls() { return {}; }

  /// How the engine's log stands, as of the last call of wait(), read(), append() or take_...(). An engine whose log
  /// cannot be lost behind the machines' backs leaves it as it is here, and does not count its records in it.
  struct LogState {
    bool reachable = true;  // a connection stands; without one nothing is sent, and append() says unknown
    bool may_pack = true;   // the engine lets this node append, and hands it votes
    // Connections made so far. When it has grown, compare the log with one's own before packing or voting.
    int64_t connections = 1;
    // Everything that was there at the last connection is read, so that what is missing below is missing there.
    bool complete = true;
    // Records 0 .. records - 1 are there; append() takes number `records`, also while records beyond it are there.
    uint64_t records = 0;
    bool gap = false;  // such records are there: number `records` was lost from the middle
    // How often messages that were there have vanished, from the end or the middle. The log is then read anew from its
    // beginning, and read() may be asked for any number again.
    int64_t losses = 0;
    std::optional<uint64_t> fork;  // the number of a record that is there twice and differs
    // The number of the engine's last message by its own count. It is no record's number and says nothing about one:
    // the header counts, and so do messages that are no records.
    uint64_t last_sequence = 0;
    std::string trouble;  // why the engine last did not do as asked; empty when it did
  };
  virtual LogState log_state() { return {}; }

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
