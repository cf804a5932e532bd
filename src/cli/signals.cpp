#include <fcntl.h>
#include <unistd.h>
#include <csignal>
#include <cstdlib>
#include <string_view>

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

/// A page of a mapped file is gone: the kernel tells it with a signal, in the middle of a kernel of ours.
void on_lost_page(int) {
  constexpr std::string_view kMessage =
      "a file that was mapped into memory was cut short or cannot be read any more\n"
      "  leave the files of model.path alone while a run uses them; the same command goes on from the last checkpoint\n";
  const auto ignored = write(STDERR_FILENO, kMessage.data(), kMessage.size());
  (void)ignored;
  _exit(kUserError);
}

void install(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, nullptr);
}

}  // namespace

bool stop_requested() { return requests > 0; }

void install_signal_handlers(bool launched) {
  install(SIGUSR1, on_signal);
  install(SIGINT, launched ? on_terminate_under_launcher : on_signal);
  install(SIGTERM, launched ? on_terminate_under_launcher : on_signal);
}

void guard_process() {
  for (int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(descriptor, F_GETFD) < 0) (void)open("/dev/null", O_RDWR);  // takes the lowest number that is free
  install(SIGPIPE, SIG_IGN);
  install(SIGBUS, on_lost_page);
}

}  // namespace tessera
