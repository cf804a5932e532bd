#pragma once
// The world of this test program: one rank under plain ctest, several under mpirun. It ends before main returns.

#include "comm/communicator.h"

namespace tessera::test {

Communicator& world();

}  // namespace tessera::test
