#pragma once
// comm/: bytes between ranks. A Communicator is the only way to another rank; MPI itself lives in a plugin.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/parts.h"
#include "comm/posted.h"
#include "core/tensor.h"

namespace tessera {

/// Calls and payload bytes that this rank handed over, by kind. A broadcast's bytes count on its root, those of an
/// exchange or a posted message on the sender; barriers and splits are not counted. One rank counts as many do.
struct Traffic {
  struct Kind {
    int64_t calls = 0, bytes = 0;
    void add(int64_t payload) { ++calls, bytes += payload; }
  };
  Kind all_reduce, reduce_scatter, all_gather, broadcast, exchange, posted;
  int64_t total_bytes() const {
    return all_reduce.bytes + reduce_scatter.bytes + all_gather.bytes + broadcast.bytes + exchange.bytes + posted.bytes;
  }
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
  /// This rank's part of `values` <- the part's sum over ranks; the other parts stay as they are. The sum is that of
  /// all_reduce_sum, to the bit. Payload counted: values.size_bytes().
  virtual void reduce_scatter_sum(std::span<float> values, const Parts&) = 0;
  /// The other ranks' parts of `values` <- what these ranks hold there: a copy. Payload counted: this rank's part.
  virtual void all_gather_parts(std::span<float> values, const Parts&) = 0;
  /// The same for a contiguous f32 view of any device; by default its elements go through the host.
  virtual void reduce_scatter_sum_view(const TensorView& values, const Parts&);
  virtual void all_gather_parts_view(const TensorView& values, const Parts&);
  /// Each rank's bytes (lengths may differ), in rank order, on every rank.
  virtual std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte>) = 0;
  /// `bytes` of the root on every rank (lengths may differ before the call).
  virtual void broadcast(std::vector<std::byte>& bytes, int root) = 0;
  /// Sends to one rank while receiving the same number of bytes from another: one ring step.
  /// The two spans must not overlap; both ranks may be this one.
  virtual void exchange(std::span<const std::byte> send, int to, std::span<std::byte> receive, int from) = 0;

  /// Begin to send or to receive and return at once. The bytes stay where they are, and those of a send unchanged,
  /// until it is done. Messages of one sender, receiver and tag arrive in the order of posting, and the lengths of a
  /// send and of its receive are equal. Apart from that messages of any lengths may be under way at once, in both
  /// directions, also to this rank. A message may move only while both ranks are inside progress() or wait(): no rank
  /// enters a collective that another one reaches only behind the message. Every message is waited for before the
  /// communicator ends.
  /// @param bytes  host memory, at most kMostPostedBytes; may be empty
  /// @param tag    0 to kPostedTags - 1
  Posted post_send(std::span<const std::byte> bytes, int to, int tag);
  Posted post_receive(std::span<std::byte> bytes, int from, int tag);
  /// Moves what is posted on without waiting: called now and then between pieces of work.
  /// @throws InternalError when a receive has got another number of bytes; its own bytes are as they were
  virtual void progress() = 0;
  /// Whether it was done when progress() or wait() last looked.
  virtual bool is_done(Posted) const = 0;
  /// Returns when it is done, and moves the others on meanwhile. Waiting again for what is done is no error.
  /// @throws InternalError as progress() does
  virtual void wait(Posted) = 0;

  virtual void barrier() = 0;
  /// Ranks of equal color (>= 0) form a new communicator, ordered by key, then by rank, with traffic of its own.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;
  /// Ends every rank of the job with this exit code, now.
  [[noreturn]] virtual void abort(int exit_code) = 0;

  const Traffic& traffic() const { return traffic_; }

 protected:
  /// The arguments are checked, the bytes counted.
  virtual Posted start_send(std::span<const std::byte> bytes, int to, int tag) = 0;
  virtual Posted start_receive(std::span<std::byte> bytes, int from, int tag) = 0;

  Traffic traffic_;
};

/// The one-rank communicator: no library, no copies but of messages to itself.
/// Its wait() throws InternalError for a message whose other side is not posted: nobody else would post it.
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
