#pragma once
// A backend without arithmetic, so that memory is planned by the code that will use it.

#include "kernels/table.h"

namespace tessera::counting {

/// The backend that does nothing but take the scratch that "cpu" would take: with a counting arena a dry run plans
/// memory.
const Kernels& table();

}  // namespace tessera::counting
