#include "infer/request.h"

namespace tessera {

std::string_view name_of(Finish finish) {
  constexpr std::string_view kNames[] = {"stop", "max_new_tokens", "max_position", "failed"};
  return kNames[static_cast<int>(finish)];
}

}  // namespace tessera
