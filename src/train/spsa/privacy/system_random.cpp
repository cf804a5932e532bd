#include "train/spsa/privacy/system_random.h"

#include <sys/random.h>

#include <cerrno>
#include <cmath>
#include <numbers>
#include <span>

#include "core/error.h"

namespace tessera {
namespace {

void fill(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = getrandom(bytes.data(), bytes.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    TS_CHECK(got > 0, "the system's random numbers cannot be had: error {}", errno);
    bytes = bytes.subspan(static_cast<size_t>(got));
  }
}

}  // namespace

uint64_t SystemRandom::word() {
  if (used_ == words_.size()) {
    fill(std::as_writable_bytes(std::span(words_)));
    used_ = 0;
  }
  return words_[used_++];
}

double SystemRandom::uniform() { return static_cast<double>(word() >> 11) * 0x1p-53; }

double SystemRandom::normal() {
  const double u = 1 - uniform();  // above 0
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * uniform());
}

}  // namespace tessera
