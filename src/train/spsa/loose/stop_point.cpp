#include "train/spsa/loose/stop_point.h"

#ifdef TESSERA_STOP_POINTS

#include <fmt/core.h>

#include <csignal>
#include <cstdlib>
#include <string_view>

namespace tessera {
namespace {

bool is_at(const char* variable, const char* name, int64_t number) {
  const char* text = std::getenv(variable);
  const auto wanted = fmt::format("{}:", name);
  return text && std::string_view(text).starts_with(wanted) && number >= std::atoll(text + wanted.size());
}

}  // namespace

void stop_point(const char* name, int64_t number) {
  if (is_at("TESSERA_STOP_AT", name, number)) std::raise(SIGKILL);
}

bool fault_point(const char* name, int64_t number) {
  static bool is_done = false;
  if (is_done || !is_at("TESSERA_FAULT_AT", name, number)) return false;
  is_done = true;
  return true;
}

}  // namespace tessera

#else

namespace tessera {

void stop_point(const char*, int64_t) {}
bool fault_point(const char*, int64_t) { return false; }

}  // namespace tessera

#endif
