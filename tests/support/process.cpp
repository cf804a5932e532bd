#include "support/process.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

namespace tessera::test {

namespace fs = std::filesystem;

namespace {

void redirect(const fs::path& file, int descriptor) {
  const int opened = open(file.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0644);
  dup2(opened, descriptor);
  close(opened);
}

/// From here on the kernel answers every flock of this process and its children with the error.
void let_flock_fail(int error) {
  std::array<sock_filter, 4> program = {{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                                         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_flock, 0, 1),
                                         BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
                                         BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}};
  const sock_fprog filter{program.size(), program.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0) return;
  dprintf(STDERR_FILENO, "flock cannot be made to fail: %s\n", std::strerror(errno));
  _exit(127);
}

[[noreturn]] void become(const Command& command, const fs::path& outputs) {
  setpgid(0, 0);
  dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
  redirect(outputs / "out", STDOUT_FILENO);
  redirect(outputs / "err", STDERR_FILENO);
  if (!command.folder.empty() && chdir(command.folder.c_str()) != 0) _exit(127);
  for (const auto& [name, value] : command.environment)
    value.empty() ? unsetenv(name.c_str()) : setenv(name.c_str(), value.c_str(), 1);
  if (command.flock_error != 0) let_flock_fail(command.flock_error);
  std::vector<char*> arguments;
  for (const std::string& argument : command.arguments) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  dprintf(STDERR_FILENO, "%s: %s\n", arguments[0], std::strerror(errno));
  _exit(127);
}

}  // namespace

Process::Process(const Command& command) {
  write_file(folder_ / "out", "");
  write_file(folder_ / "err", "");
  pid_ = fork();
  if (pid_ == 0) become(command, folder_.path());
  setpgid(pid_, pid_);  // whichever of the two comes first
}

Process::~Process() {
  if (!ended_) wait(0);
}

void Process::kill_all() {
  const auto below = children();  // mpirun gives each rank a group of its own
  for (const pid_t child : below) kill(child, SIGKILL);
  kill(-pid_, SIGKILL);
  waitpid(pid_, &status_, 0);
  ended_ = true;
}

std::vector<pid_t> Process::children() const {
  const std::string number = std::to_string(pid_);
  std::ifstream list("/proc/" + number + "/task/" + number + "/children");
  std::vector<pid_t> pids;
  for (pid_t pid; list >> pid;) pids.push_back(pid);
  return pids;
}

void Process::send(int signal) const { kill(pid_, signal); }

bool Process::running() {
  if (!ended_) ended_ = waitpid(pid_, &status_, WNOHANG) == pid_;
  return !ended_;
}

Ended Process::wait(double seconds) {
  Ended result;
  if (!wait_until([&] { return !running(); }, seconds)) {
    kill_all();
    result.timed_out = true;
  }
  result.exit_code = WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  result.out = read_file(folder_ / "out");
  result.err = read_file(folder_ / "err");
  return result;
}

Ended run(const Command& command, double seconds) { return Process(command).wait(seconds); }

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

}  // namespace tessera::test
