#pragma once
// comm/: bytes between ranks. A Communicator is the only way to another rank; MPI itself lives in a plugin.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace tessera {

/// Calls and payload bytes that this rank handed to collectives, by kind. A broadcast's bytes count on its root, an
/// exchange's on the sender; barriers and splits are not counted. One rank counts as many do.
struct Traffic {
  struct Kind {
    int64_t calls = 0, bytes = 0;
    void add(int64_t payload) { ++calls, bytes += payload; }
  };
  Kind all_reduce, all_gather, broadcast, exchange;
  int64_t total_bytes() const { return all_reduce.bytes + all_gather.bytes + broadcast.bytes + exchange.bytes; }
};

/// Every collective is reached by every rank in the same order. Calls come from the main thread.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Ranks of this machine that share memory (and cores) with this one, and this rank's number among them.
  virtual int local_rank() const = 0;
  virtual int local_size() const = 0;

  /// values <- sum over ranks. Each element is summed in rank order in f64 and rounded once, so the result is the same
  /// bits on every rank and in every run, and does not depend on arrival. Payload counted: values.size_bytes().
  virtual void all_reduce_sum(std::span<float> values) = 0;
  virtual void all_reduce_sum(std::span<double> values) = 0;
  /// The same for a contiguous f32 view of any device; by default its elements go through the host.
  virtual void all_reduce_sum_view(const TensorView& values);
  /// values <- maximum over ranks; NaN on any rank gives NaN. Counted as all_reduce.
  virtual void all_reduce_max(std::span<double> values) = 0;
  /// Each rank's bytes (lengths may differ), in rank order, on every rank.
  virtual std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte>) = 0;
  /// `bytes` of the root on every rank (lengths may differ before the call).
  virtual void broadcast(std::vector<std::byte>& bytes, int root) = 0;
  /// Sends to one rank while receiving the same number of bytes from another: one ring step.
  /// The two spans must not overlap; both ranks may be this one.
  virtual void exchange(std::span<const std::byte> send, int to, std::span<std::byte> receive, int from) = 0;
  virtual void barrier() = 0;
  /// Ranks of equal color (>= 0) form a new communicator, ordered by key, then by rank, with traffic of its own.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;
  /// Ends every rank of the job with this exit code, now.
  [[noreturn]] virtual void abort(int exit_code) = 0;

  const Traffic& traffic() const { return traffic_; }

 protected:
  Traffic traffic_;
};

/// The one-rank communicator: no library, no copies.
std::unique_ptr<Communicator> self_communicator();

/// True when a launcher's variables (Open MPI, MPICH/PMI, Slurm) say that this process is one rank of several, or of
/// one.
bool launched_by_mpi();

/// This process's rank by the launcher's variables (0 without one): for messages before there is a world.
int launched_rank();

/// The world: `self` without a launcher; otherwise MPI_COMM_WORLD through the plugin libtessera_mpi.so, which is looked
/// for in $TESSERA_PLUGIN_DIR, beside the program and in ../lib (and lib/<triplet>) from it.
/// The last communicator of the world to be destroyed ends MPI on every rank. While an exception unwinds it does not
/// wait for the others: the launcher then sees a rank leave without ending MPI, and ends the job.
/// @throws UserError when a launcher is there and the plugin is not, or MPI sees another number of ranks than it
std::unique_ptr<Communicator> world_communicator();

/// Throws UserError on every rank, naming what differs and the ranks that differ, unless all ranks pass equal text.
void require_equal(Communicator&, const std::string& what, const std::string& value);

/// Rank 0's text on every rank.
std::string broadcast_text(Communicator&, const std::string& chosen);

/// Sums a few numbers over the ranks, in rank order: the control plane, apart from gradients.
std::vector<double> sum_over_ranks(Communicator&, const std::vector<double>& mine);

}  // namespace tessera
