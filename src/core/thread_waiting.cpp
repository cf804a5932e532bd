#include "core/thread_waiting.h"

#include <unistd.h>

#include <cstdlib>

namespace tessera {

void shorten_thread_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  setenv("GOMP_SPINCOUNT", "2000", 1);
  execv("/proc/self/exe", argv);  // on failure the program goes on as it is
}

}  // namespace tessera
