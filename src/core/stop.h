#pragma once
// A stop that was asked for from outside: long work looks between two pieces of it, and leaves with nothing half done.

#include <string_view>

namespace tessera {

/// Asks this process to stop. Safe inside a signal's handler.
void request_stop();
bool stop_requested();

/// Call between two pieces of work that leave nothing behind.
/// @param work  "preparing data": the message is "stopped while preparing data"
/// @throws Stopped when a stop was asked for
void leave_if_asked(std::string_view work);

}  // namespace tessera
