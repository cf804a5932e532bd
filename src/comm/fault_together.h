#pragma once
// A fault that one rank meets ends the work of all: they throw it together, or none does.

#include <functional>
#include <optional>
#include <string>

#include "comm/communicator.h"
#include "core/error.h"

namespace tessera {

/// What `work` throws. Other errors pass.
std::optional<UserError> user_fault_of(const std::function<void()>& work);

/// A collective: @throws UserError on every rank when any has a fault, that of the lowest such rank
void throw_together(Communicator&, const std::optional<UserError>& mine);

}  // namespace tessera
