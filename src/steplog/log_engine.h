#pragma once
// Transports of shared-seed training: one totally ordered log for all machines, and votes on their way to it. Five calls; no
// assumption about MPI, and none about who is there.

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

 protected:
  Traffic traffic_;
};

/// Ranks of one communicator: wait() is one all-gather of what each rank published since the last; every rank then has the same votes in rank
/// order, forms the same record and appends it to its own copy: append() and read() do not communicate.
/// @param log_size  records that exist already (all ranks hold the same number)
std::unique_ptr<LogEngine> make_mpi_engine(Communicator&, uint64_t log_size);

/// Processes of one host that share `folder`: the ordered log is a StepLog there, written under flock; votes are small files' lines appended under
/// flock to votes/<seed round>.votes, removed some rounds later.
/// @param header_json  the run header; the first process makes the log with it, the others must have the same
std::unique_ptr<LogEngine> make_file_engine(const std::filesystem::path& folder, const std::string& header_json);

}  // namespace tessera
