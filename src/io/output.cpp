#include "io/output.h"

#include <cerrno>
#include <cstdio>

#include "io/file_descriptor.h"

namespace tessera {
namespace {

int failure = 0;  // the first one's errno

template <class Call> void keep_failure(Call is_done) {
  if (failure != 0) return;
  errno = 0;
  if (!is_done()) failure = errno != 0 ? errno : EIO;
}

}  // namespace

void put_out(std::string_view text) {
  keep_failure([&] { return std::fwrite(text.data(), 1, text.size(), stdout) == text.size(); });
}

bool flush_output() {
  keep_failure([] { return std::fflush(stdout) == 0; });
  return failure == 0;
}

void finish_output() {
  keep_failure([] { return std::fclose(stdout) == 0; });  // some network file systems tell of a full disk only here
  // A reader that has gone has read what it wanted.
  if (failure != 0 && failure != EPIPE) throw_file_error("standard output", "cannot be written", failure);
}

}  // namespace tessera
