#pragma once
// A row of numbers that ranks share out between them: one part a rank, one behind the other.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tessera {

/// Rank r's part is [begin(r), end(r)) of the row. Parts follow each other in rank order; any may be empty.
struct Parts {
  std::vector<int64_t> ends;  // one a rank; the last is the row's length

  int64_t begin(int rank) const { return rank == 0 ? 0 : end(rank - 1); }
  int64_t end(int rank) const { return ends[static_cast<size_t>(rank)]; }
  int64_t size(int rank) const { return end(rank) - begin(rank); }
};

/// Parts that differ by one number at most: rank r's ends at count · (r + 1) / ranks, rounded down.
Parts even_parts(int64_t count, int ranks);

/// @throws InternalError unless there is one part a rank and together they are the row
void check_parts(const Parts&, int ranks, int64_t count);

}  // namespace tessera
