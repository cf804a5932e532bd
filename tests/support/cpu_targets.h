#pragma once
// The instructions of this machine, for tests that show that all give the same bits.

#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/cpu_target.h"

namespace tessera::test {

/// Names that use_cpu_target takes here, the best first, without "auto", which is in use afterwards.
inline std::vector<std::string> cpu_targets() {
  std::vector<std::string> found;
  for (const std::string& name : cpu_target_choices()) {
    try {
      use_cpu_target(name);
      if (name != "auto") found.push_back(name);
    } catch (const UserError&) {  // not of this machine
    }
  }
  use_cpu_target("auto");
  return found;
}

}  // namespace tessera::test
