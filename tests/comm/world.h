#pragma once
// The world of this test program: one rank under plain ctest, several under mpirun. It ends before main returns.

#include <functional>

#include "comm/communicator.h"

namespace tessera::test {

Communicator& world();

/// Runs a test's body in this program's world and, where no launcher has started it, in worlds of 2, 3 and 4 ranks that
/// are threads. The body calls no ASSERT between collectives.
void in_every_world(const std::function<void(Communicator&)>& body);

}  // namespace tessera::test
