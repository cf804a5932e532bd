#include "cli/signals.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <string_view>

#include "cli/jobs.h"
#include "core/stop.h"

namespace tessera {
namespace {

/// A terminal, a shell and `timeout` may each send theirs for one and the same wish.
constexpr int64_t kTogetherMilliseconds = 500;

std::atomic<int64_t> first_demand{0};  // milliseconds of a clock that does not stand at 0
static_assert(std::atomic<int64_t>::is_always_lock_free, "a signal's handler writes it");

int64_t now_in_milliseconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{1} + 1000 * static_cast<int64_t>(now.tv_sec) + now.tv_nsec / 1000000;
}

/// A notice beforehand, which may come again and again: the kernel sends XCPU every second.
void on_request(int) { request_stop(); }

/// A demand: the first stops after the step and a checkpoint, a second one at once.
void on_demand(int) {
  request_stop();
  const int64_t now = now_in_milliseconds();
  int64_t first = 0;
  if (!first_demand.compare_exchange_strong(first, now) && now - first >= kTogetherMilliseconds) _exit(kStopped);
}

void leave_at_once(int) { _exit(kStopped); }  // half a second is left: the last checkpoint counts

/// Slurm's own launcher passes on what a job is sent, and waits for as long as the cluster says (KillWait).
bool is_patient_launcher() { return std::getenv("SLURM_STEP_ID") && !std::getenv("OMPI_COMM_WORLD_SIZE"); }

/// A page of a mapped file is gone: the kernel tells it with a signal, in the middle of a kernel of ours.
void on_lost_page(int) {
  constexpr std::string_view kMessage =
      "a file that was mapped into memory was cut short or cannot be read any more\n"
      "  leave the files of model.path and of [data] alone while a run uses them; the same command goes on from the last checkpoint\n";
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

void install_stop_signals(bool launched) {
  for (const int signal : {SIGUSR1, SIGUSR2, SIGXCPU}) install(signal, on_request);
  struct sigaction hang_up {};
  sigaction(SIGHUP, nullptr, &hang_up);
  if (hang_up.sa_handler != SIG_IGN) install(SIGHUP, on_request);  // nohup
  for (const int signal : {SIGINT, SIGTERM})
    install(signal, launched && !is_patient_launcher() ? leave_at_once : on_demand);
}

void guard_process() {
  for (int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(descriptor, F_GETFD) < 0) (void)open("/dev/null", O_RDWR);  // takes the lowest number that is free
  install(SIGPIPE, SIG_IGN);
  install(SIGXFSZ, SIG_IGN);
  install(SIGBUS, on_lost_page);
}

}  // namespace tessera
