#pragma once
// Sums over ranks in rank order, of host memory. MPI_Allreduce may add in any order, so sums are made here. With R
// ranks, `values` is cut into pieces that bound the scratch memory, and each piece into R parts; rank r owns part r:
//
//   rank 0  [a0|a1|a2]                 [a0 b0 c0]  -> a0+b0+c0
//   rank 1  [b0|b1|b2]   all-to-all    [a1 b1 c1]  -> a1+b1+c1    all-gather -> every rank has [s0|s1|s2]
//   rank 2  [c0|c1|c2]                 [a2 b2 c2]  -> a2+b2+c2
//
// A rank sends and receives about 2·bytes·(R-1)/R, like a ring, but every element is added in rank order, in f64, once.
// Small arrays are gathered whole and summed by everyone: one message less to wait for. The first step alone is
// reduce_scatter, the second alone all_gather; there the caller says who owns what, and a piece holds as many numbers
// of each rank's part.

#include <mpi.h>

#include <algorithm>
#include <array>
#include <functional>
#include <span>
#include <vector>

#include "comm/mpi/handles.h"
#include "comm/parts.h"

namespace tessera::mpi {

constexpr int64_t kGatherWholeBytes = 4 << 10;  // up to here one all-gather is quicker than two steps
constexpr int64_t kPieceBytes = 4 << 20;        // scratch per rank; larger pieces were not quicker

template <class T> MPI_Datatype type_of();
template <> inline MPI_Datatype type_of<float>() { return MPI_FLOAT; }
template <> inline MPI_Datatype type_of<double>() { return MPI_DOUBLE; }

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

/// Of several ranks, with the scratch memory that is kept between steps.
class Sums {
 public:
  Sums() = default;
  Sums(MPI_Comm comm, int rank, int ranks) : comm_(comm), rank_(rank), ranks_(ranks) {}

  template <class T, class Op> void all_reduce(std::span<T> values, Op op) {
    if (static_cast<int64_t>(values.size_bytes()) <= kGatherWholeBytes) return reduce_whole(values, op);
    constexpr size_t kPiece = kPieceBytes / sizeof(T);
    for (size_t begin = 0; begin < values.size(); begin += kPiece) {
      const auto piece = values.subspan(begin, std::min(kPiece, values.size() - begin));
      const Parts parts = even_parts(piece.size(), ranks_);
      reduce_parts(piece, parts, op);
      gather_parts(piece, parts);
    }
  }

  void reduce_scatter(std::span<float> values, const Parts& parts) {
    for_each_piece(values, parts, [&](std::span<float> piece, const Parts& places) {
      reduce_parts(piece, places, std::plus<double>());
      return std::pair(rank_, rank_ + 1);
    });
  }

  void all_gather(std::span<float> values, const Parts& parts) {
    for_each_piece(values, parts, [&](std::span<float> piece, const Parts& places) {
      gather_parts(piece, places);
      return std::pair(0, ranks_);
    });
  }

 private:
  /// What MPI takes: counts and begins of a piece's parts.
  struct Places {
    std::vector<int> counts, begins;
    Places(const Parts& parts, int ranks) : counts(ranks), begins(ranks) {
      for (int r = 0; r < ranks; ++r) counts[r] = parts.size(r), begins[r] = parts.begin(r);
    }
  };

  template <class T, class Op> void reduce_whole(std::span<T> values, Op op) {
    T* all = scratch<T>(values.size() * ranks_);
    const int count = values.size();
    check(MPI_Allgather(values.data(), count, type_of<T>(), all, count, type_of<T>(), comm_), "MPI_Allgather");
    combine_in_rank_order(all, ranks_, values, op);
  }

  /// This rank's part <- its combination over the ranks.
  template <class T, class Op> void reduce_parts(std::span<T> values, const Parts& parts, Op op) {
    const Places all(parts, ranks_);
    const int mine = all.counts[rank_];
    std::vector<int> mine_counts(ranks_, mine), mine_begins(ranks_);
    for (int r = 0; r < ranks_; ++r) mine_begins[r] = r * mine;

    T* contributions = scratch<T>(static_cast<size_t>(mine) * ranks_);
    check(MPI_Alltoallv(values.data(), all.counts.data(), all.begins.data(), type_of<T>(), contributions,
                        mine_counts.data(), mine_begins.data(), type_of<T>(), comm_),
          "MPI_Alltoallv");
    combine_in_rank_order(contributions, ranks_, values.subspan(all.begins[rank_], mine), op);
  }

  /// The other ranks' parts <- theirs.
  template <class T> void gather_parts(std::span<T> values, const Parts& parts) {
    const Places all(parts, ranks_);
    check(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, values.data(), all.counts.data(), all.begins.data(),
                         type_of<T>(), comm_),
          "MPI_Allgatherv");
  }

  /// Calls `step` for piece after piece: numbers [begin, begin + most) of every rank's part, one rank's behind the
  /// other's. It says whose of them go back into `values`.
  template <class Step> void for_each_piece(std::span<float> values, const Parts& parts, Step step) {
    const int64_t most = kPieceBytes / static_cast<int64_t>(sizeof(float)) / ranks_;
    int64_t longest = 0;
    for (int r = 0; r < ranks_; ++r) longest = std::max(longest, parts.size(r));
    for (int64_t begin = 0; begin < longest; begin += most) {
      Parts places;
      piece_.clear();
      const auto at = [&](int rank) { return values.begin() + std::min(parts.begin(rank) + begin, parts.end(rank)); };
      for (int r = 0; r < ranks_; ++r) {
        piece_.insert(piece_.end(), at(r), at(r) + std::clamp<int64_t>(parts.size(r) - begin, 0, most));
        places.ends.push_back(piece_.size());
      }
      const auto [first, last] = step(std::span(piece_), places);
      for (int r = first; r < last; ++r) std::copy_n(piece_.begin() + places.begin(r), places.size(r), at(r));
    }
  }

  template <class T> T* scratch(size_t count) {
    if (scratch_.size() * sizeof(double) < count * sizeof(T)) scratch_.resize((count * sizeof(T)) / sizeof(double) + 1);
    return reinterpret_cast<T*>(scratch_.data());
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, ranks_ = 1;
  std::vector<double> scratch_;
  std::vector<float> piece_;
};

}  // namespace tessera::mpi
