#include <unistd.h>
#include <csignal>
#include <cstdlib>

#include "cli/jobs.h"

namespace tessera {
namespace {

volatile std::sig_atomic_t requests = 0;

/// The first signal stops after the step and a checkpoint, the second at once.
void on_signal(int) {
  requests = requests + 1;
  if (requests > 1) _exit(kStopped);
}

void on_terminate_under_launcher(int) { _exit(kStopped); }  // half a second is left: the last checkpoint counts

}  // namespace

bool stop_requested() { return requests > 0; }

void install_signal_handlers(bool launched) {
  const auto install = [](int signal, void (*handler)(int)) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(signal, &action, nullptr);
  };
  install(SIGUSR1, on_signal);
  install(SIGINT, launched ? on_terminate_under_launcher : on_signal);
  install(SIGTERM, launched ? on_terminate_under_launcher : on_signal);
}

}  // namespace tessera
