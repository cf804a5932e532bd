#include <cstring>

#include "comm/communicator.h"

namespace tessera {

std::vector<double> sum_over_ranks(Communicator& world, const std::vector<double>& mine) {
  std::vector<double> total(mine.size());
  for (const auto& bytes : world.all_gather(std::as_bytes(std::span(mine)))) {
    std::vector<double> other(mine.size());
    std::memcpy(other.data(), bytes.data(), bytes.size());
    for (size_t i = 0; i < mine.size(); ++i) total[i] += other[i];
  }
  return total;
}

}  // namespace tessera
