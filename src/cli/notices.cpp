#include "cli/notices.h"

#include "core/error.h"

namespace tessera {

void tell(const JobInputs& in, const std::string& notice) {
  if (in.world.rank() == 0 && !in.quiet && !notice.empty()) fmt::print(stderr, "{}\n", notice);
}

std::function<void(const std::string&)> teller(const JobInputs& in) {
  return [&in](const std::string& notice) { tell(in, notice); };
}

}  // namespace tessera
