// The Communicator over MPI, for host memory. Built as a library of its own, opened only under a launcher.

#include "comm/mpi/plugin.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <numeric>

#include "comm/communicator.h"
#include "comm/mpi/handles.h"
#include "comm/mpi/requests.h"
#include "comm/mpi/sums.h"
#include "core/error.h"

namespace tessera::mpi {
namespace {

constexpr int64_t kMessageBytes = 1 << 30;  // MPI counts are ints
constexpr int kExchangeTag = 0;             // Requests has the others

double larger_or_nan(double a, double b) { return a >= b || std::isnan(a) ? a : b; }

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator(std::shared_ptr<Library> library, MPI_Comm handle) : comm_(std::move(library), handle) {
    check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
    MPI_Comm node = MPI_COMM_NULL;
    check(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node), "MPI_Comm_split_type");
    const Comm node_owner(comm_.library(), node);
    check(MPI_Comm_rank(node, &local_rank_), "MPI_Comm_rank");
    check(MPI_Comm_size(node, &local_size_), "MPI_Comm_size");
    sums_ = Sums(comm_, rank_, size_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int local_rank() const override { return local_rank_; }
  int local_size() const override { return local_size_; }

  void all_reduce_sum(std::span<float> values) override { all_reduce(values, std::plus<double>()); }
  void all_reduce_sum(std::span<double> values) override { all_reduce(values, std::plus<double>()); }
  void all_reduce_max(std::span<double> values) override { all_reduce(values, larger_or_nan); }

  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    traffic_.all_gather.add(mine.size());
    std::vector<int64_t> lengths(size_);
    const int64_t length = mine.size();
    check(MPI_Allgather(&length, 1, MPI_INT64_T, lengths.data(), 1, MPI_INT64_T, comm_), "MPI_Allgather");

    std::vector<std::vector<std::byte>> gathered(size_);
    for (int r = 0; r < size_; ++r) gathered[r].resize(lengths[r]);
    // Rounds of at most `step` bytes a rank keep the offsets within an int.
    const int64_t step = kMessageBytes / size_, longest = *std::max_element(lengths.begin(), lengths.end());
    for (int64_t begin = 0; begin < longest; begin += step) gather_round(mine, begin, step, gathered);
    return gathered;
  }

  void broadcast(std::vector<std::byte>& bytes, int root) override {
    check_rank(root);
    traffic_.broadcast.add(rank_ == root ? bytes.size() : 0);
    int64_t length = bytes.size();
    check(MPI_Bcast(&length, 1, MPI_INT64_T, root, comm_), "MPI_Bcast");
    bytes.resize(length);
    for (int64_t begin = 0; begin < length; begin += kMessageBytes) {
      const int count = std::min(kMessageBytes, length - begin);
      check(MPI_Bcast(bytes.data() + begin, count, MPI_BYTE, root, comm_), "MPI_Bcast");
    }
  }

  void exchange(std::span<const std::byte> send, int to, std::span<std::byte> receive, int from) override {
    check_rank(to);
    check_rank(from);
    TS_CHECK(send.size() == receive.size(), "sends {} bytes, receives {}", send.size(), receive.size());
    traffic_.exchange.add(send.size());
    const int64_t length = send.size();
    for (int64_t begin = 0; begin < length; begin += kMessageBytes) {
      const int count = std::min(kMessageBytes, length - begin);
      check(MPI_Sendrecv(send.data() + begin, count, MPI_BYTE, to, kExchangeTag, receive.data() + begin, count,
                         MPI_BYTE, from, kExchangeTag, comm_, MPI_STATUS_IGNORE),
            "MPI_Sendrecv");
    }
  }

  void reduce_scatter_sum(std::span<float> values, const Parts& parts) override {
    check_parts(parts, size_, values.size());
    traffic_.reduce_scatter.add(values.size_bytes());
    if (size_ > 1) sums_.reduce_scatter(values, parts);
  }
  void all_gather_parts(std::span<float> values, const Parts& parts) override {
    check_parts(parts, size_, values.size());
    traffic_.all_gather.add(parts.size(rank_) * sizeof(float));
    if (size_ > 1) sums_.all_gather(values, parts);
  }

  void progress() override { requests_.progress(comm_); }
  bool is_done(Posted posted) const override { return requests_.is_done(posted); }
  void wait(Posted posted) override {
    while (!requests_.is_done(posted)) requests_.progress(comm_);  // MPI lets other ranks compute meanwhile
  }

  void barrier() override { check(MPI_Barrier(comm_), "MPI_Barrier"); }

  std::unique_ptr<Communicator> split(int color, int key) override {
    TS_CHECK(color >= 0, "color {}", color);
    MPI_Comm part = MPI_COMM_NULL;
    check(MPI_Comm_split(comm_, color, key, &part), "MPI_Comm_split");
    return std::make_unique<MpiCommunicator>(comm_.library(), part);
  }

  void abort(int exit_code) override {
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    std::_Exit(exit_code);
  }

 protected:
  Posted start_send(std::span<const std::byte> bytes, int to, int tag) override {
    return requests_.send(comm_, {rank_, to, tag}, bytes);
  }
  Posted start_receive(std::span<std::byte> bytes, int from, int tag) override {
    return requests_.receive({from, rank_, tag}, bytes);
  }

 private:
  void check_rank(int rank) const { TS_CHECK(rank >= 0 && rank < size_, "rank {} of {}", rank, size_); }

  template <class T, class Op> void all_reduce(std::span<T> values, Op op) {
    traffic_.all_reduce.add(values.size_bytes());
    if (size_ > 1 && !values.empty()) sums_.all_reduce(values, op);
  }

  /// Bytes [begin, begin + step) of every rank, into their places in `gathered`.
  void gather_round(std::span<const std::byte> mine, int64_t begin, int64_t step,
                    std::vector<std::vector<std::byte>>& gathered) {
    std::vector<int> counts(size_), begins(size_);
    for (int r = 0; r < size_; ++r)
      counts[r] = std::clamp<int64_t>(static_cast<int64_t>(gathered[r].size()) - begin, 0, step);
    std::exclusive_scan(counts.begin(), counts.end(), begins.begin(), 0);
    std::vector<std::byte> all(begins.back() + counts.back());
    check(MPI_Allgatherv(mine.data() + (counts[rank_] > 0 ? begin : 0), counts[rank_], MPI_BYTE, all.data(),
                         counts.data(), begins.data(), MPI_BYTE, comm_),
          "MPI_Allgatherv");
    for (int r = 0; r < size_; ++r)
      if (counts[r] > 0) std::copy_n(all.begin() + begins[r], counts[r], gathered[r].begin() + begin);
  }

  Comm comm_;
  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1;
  Sums sums_;
  Requests requests_;
};

/// Whether one rank may read another's memory: containers often forbid the call.
bool process_vm_read_works() {
  char from = 1, to = 0;
  const iovec local{&to, 1}, remote{&from, 1};
  return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 1;
}

/// Settings of Open MPI that suit this program; the user's own (variables or `mpirun --mca`) stay.
void set_open_mpi_defaults() {
  constexpr int kKeep = 0;
  // A waiting rank lets others compute. mpirun sets it when it sees more ranks than cores, but containers hide how many
  // cores there really are. 8 ranks on 2 cores, sum of 200 KB: 0.5 ms with it, 340 ms without.
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", kKeep);
  // Otherwise Open MPI prints a warning for every rank.
  if (!process_vm_read_works()) setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", kKeep);
}

}  // namespace

Library::Library() {
  set_open_mpi_defaults();
  int provided = MPI_THREAD_SINGLE;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  TS_CHECK(provided >= MPI_THREAD_FUNNELED, "MPI offers thread level {}, OpenMP regions need {}", provided,
           MPI_THREAD_FUNNELED);
  check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

Library::~Library() {
  if (std::uncaught_exceptions() == 0) MPI_Finalize();
}

Comm::~Comm() {
  if (std::uncaught_exceptions() == 0) MPI_Comm_free(&handle_);
}

}  // namespace tessera::mpi

extern "C" tessera::Communicator* tessera_mpi_world_2() {
  using namespace tessera::mpi;
  auto library = std::make_shared<Library>();
  MPI_Comm world = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup");
  return new MpiCommunicator(std::move(library), world);
}

#ifdef OPEN_MPI
extern "C" const bool tessera_mpi_needs_pmix = true;
#endif
