#pragma once
// A stop that was asked for reaches ranks at different moments: they leave together, or not at all.

#include <string_view>

#include "comm/communicator.h"

namespace tessera {

/// A collective: whether any rank was asked, the same answer on every one.
bool any_asked(Communicator&, bool asked);
/// A collective: @throws Stopped on every rank when `asked` is true on any.
/// @param work  as for leave_if_asked
void leave_together(Communicator&, bool asked, std::string_view work);

}  // namespace tessera
