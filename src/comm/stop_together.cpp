#include "comm/stop_together.h"

#include <array>

#include "core/error.h"

namespace tessera {

bool any_asked(Communicator& world, bool asked) {
  std::array<double, 1> any{asked ? 1.0 : 0.0};
  world.all_reduce_max(std::span<double>(any));
  return any[0] > 0;
}

void leave_together(Communicator& world, bool asked, std::string_view work) {
  if (any_asked(world, asked)) throw Stopped(fmt::format("stopped while {}", work));
}

}  // namespace tessera
