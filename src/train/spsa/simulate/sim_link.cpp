#include "train/spsa/simulate/sim_link.h"

#include <algorithm>

#include "train/spsa/simulate/sim_draws.h"

namespace tessera {
namespace {

enum Draw : uint64_t { jitter, loss };

}  // namespace

SimTime SimLink::on_its_way(SimTime now, int64_t bytes, uint64_t message) {
  free_at_ = std::max(free_at_, now) + sim_time(static_cast<double>(bytes) / terms_.bytes_per_second);
  const double u = sim_unit(hash_key({key_, message}), jitter);
  return free_at_ + terms_.latency + static_cast<SimTime>(static_cast<double>(terms_.jitter) * u);
}

std::optional<SimTime> SimLink::send(SimTime now, int64_t bytes) {
  const uint64_t message = messages_++;
  const SimTime there = on_its_way(now, bytes, message);
  if (sim_unit(hash_key({key_, message}), loss) < terms_.loss) return std::nullopt;
  return there;
}

SimTime SimLink::send_safely(SimTime now, int64_t bytes) {
  const uint64_t message = messages_++;
  SimTime there = on_its_way(now, bytes, message);
  for (uint64_t k = 0; sim_unit(hash_key({key_, message}), loss + k) < terms_.loss; ++k) there += kRetransmission;
  last_of_stream_ = std::max(last_of_stream_, there);
  return last_of_stream_;
}

}  // namespace tessera
