#pragma once
// What a call says when it fails.

#include <sys/resource.h>

#include <csignal>
#include <string>

#include "core/error.h"

namespace tessera::test {

inline const std::string kNothingThrown = "nothing was thrown";

/// The message of the UserError that `call` throws, or kNothingThrown.
template <class Call> std::string error_text(Call call) {
  try {
    call();
  } catch (const UserError& error) {
    return error.what();
  }
  return kNothingThrown;
}

/// What a call says that met such a limit, behind the place.
inline const std::string kFileTooLarge =
    "File too large\n  raise the limit of a file's size (ulimit -f), or choose another folder";

/// While it lives, no file can grow beyond `bytes`: writing fails as it does on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;

 private:
  void (*old_handler_)(int);
  rlimit old_{};
};

}  // namespace tessera::test
