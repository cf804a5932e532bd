#include "core/stop.h"

#include <atomic>

#include "core/error.h"

namespace tessera {
namespace {

std::atomic<bool> requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal's handler writes it");

}  // namespace

void request_stop() { requested = true; }

bool stop_requested() { return requested; }

void leave_if_asked(std::string_view work) {
  if (requested) throw Stopped(fmt::format("stopped while {}", work));
}

}  // namespace tessera
