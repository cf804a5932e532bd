// The Communicator over MPI, for host memory. Built as a library of its own, opened only under a launcher.
//
// MPI_Allreduce may add in any order, so sums are made here. With R ranks, `values` is cut into pieces that bound the
// scratch memory, and each piece into R segments; rank r owns segment r:
//
//   rank 0  [a0|a1|a2]                 [a0 b0 c0]  -> a0+b0+c0
//   rank 1  [b0|b1|b2]   all-to-all    [a1 b1 c1]  -> a1+b1+c1    all-gather -> every rank has [s0|s1|s2]
//   rank 2  [c0|c1|c2]                 [a2 b2 c2]  -> a2+b2+c2
//
// A rank sends and receives about 2·bytes·(R-1)/R, like a ring, but every element is added in rank order, in f64, once.
// Small arrays are gathered whole and summed by everyone: one message less to wait for.

#include "comm/mpi/plugin.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <numeric>

#include "comm/communicator.h"
#include "comm/mpi/handles.h"
#include "core/error.h"

namespace tessera::mpi {
namespace {

constexpr int64_t kGatherWholeBytes = 4 << 10;  // up to here one all-gather is quicker than two steps
constexpr int64_t kPieceBytes = 4 << 20;        // scratch per rank; larger pieces were not quicker
constexpr int64_t kMessageBytes = 1 << 30;      // MPI counts are ints

template <class T> MPI_Datatype type_of();
template <> MPI_Datatype type_of<float>() { return MPI_FLOAT; }
template <> MPI_Datatype type_of<double>() { return MPI_DOUBLE; }

double larger_or_nan(double a, double b) { return a >= b || std::isnan(a) ? a : b; }

/// out[i] = contributions[0][i] op contributions[1][i] op ..., in f64, rounded once; rows are `out.size()` apart.
template <class T, class Op> void combine_in_rank_order(const T* contributions, int ranks, std::span<T> out, Op op) {
  constexpr int64_t kBlock = 512;  // the accumulators stay in the first cache
  std::array<double, kBlock> sum;
  const int64_t count = out.size();
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const T* row = contributions + begin;
    std::copy(row, row + n, sum.begin());
    for (int r = 1; r < ranks; ++r) {
      row += count;
      for (int64_t i = 0; i < n; ++i) sum[i] = op(sum[i], static_cast<double>(row[i]));
    }
    std::transform(sum.begin(), sum.begin() + n, out.begin() + begin, [](double s) { return static_cast<T>(s); });
  }
}

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
      check(MPI_Sendrecv(send.data() + begin, count, MPI_BYTE, to, 0, receive.data() + begin, count, MPI_BYTE, from, 0,
                         comm_, MPI_STATUS_IGNORE),
            "MPI_Sendrecv");
    }
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

 private:
  void check_rank(int rank) const { TS_CHECK(rank >= 0 && rank < size_, "rank {} of {}", rank, size_); }

  template <class T, class Op> void all_reduce(std::span<T> values, Op op) {
    traffic_.all_reduce.add(values.size_bytes());
    if (size_ == 1 || values.empty()) return;
    if (static_cast<int64_t>(values.size_bytes()) <= kGatherWholeBytes) return reduce_whole(values, op);
    constexpr size_t kPiece = kPieceBytes / sizeof(T);
    for (size_t begin = 0; begin < values.size(); begin += kPiece)
      reduce_piece(values.subspan(begin, std::min(kPiece, values.size() - begin)), op);
  }

  template <class T, class Op> void reduce_whole(std::span<T> values, Op op) {
    T* all = scratch<T>(values.size() * size_);
    const int count = values.size();
    check(MPI_Allgather(values.data(), count, type_of<T>(), all, count, type_of<T>(), comm_), "MPI_Allgather");
    combine_in_rank_order(all, size_, values, op);
  }

  template <class T, class Op> void reduce_piece(std::span<T> values, Op op) {
    std::vector<int> begins(size_ + 1), counts(size_);
    for (int r = 0; r <= size_; ++r) begins[r] = static_cast<int64_t>(values.size()) * r / size_;
    for (int r = 0; r < size_; ++r) counts[r] = begins[r + 1] - begins[r];
    const int mine = counts[rank_];
    std::vector<int> mine_counts(size_, mine), mine_begins(size_);
    for (int r = 0; r < size_; ++r) mine_begins[r] = r * mine;

    T* contributions = scratch<T>(static_cast<size_t>(mine) * size_);
    check(MPI_Alltoallv(values.data(), counts.data(), begins.data(), type_of<T>(), contributions, mine_counts.data(),
                        mine_begins.data(), type_of<T>(), comm_),
          "MPI_Alltoallv");
    combine_in_rank_order(contributions, size_, values.subspan(begins[rank_], mine), op);
    check(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, values.data(), counts.data(), begins.data(), type_of<T>(),
                         comm_),
          "MPI_Allgatherv");
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

  template <class T> T* scratch(size_t count) {
    if (scratch_.size() * sizeof(double) < count * sizeof(T)) scratch_.resize((count * sizeof(T)) / sizeof(double) + 1);
    return reinterpret_cast<T*>(scratch_.data());
  }

  Comm comm_;
  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1;
  std::vector<double> scratch_;  // of all-reduces, kept between steps
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

extern "C" tessera::Communicator* tessera_mpi_world_1() {
  using namespace tessera::mpi;
  auto library = std::make_shared<Library>();
  MPI_Comm world = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup");
  return new MpiCommunicator(std::move(library), world);
}

#ifdef OPEN_MPI
extern "C" const bool tessera_mpi_needs_pmix = true;
#endif
