#include "model/sharing/base.h"

#include "core/error.h"

namespace tessera {

std::unique_ptr<BaseSharing> make_sharing(const SharingConfig& config, const KeyPlaces& where) {
  for (const SharingMethod& method : sharing_methods())
    if (method.name == config.method) return method.make(config, where);
  TS_CHECK(false, "sharing method \"{}\" passed the recipe's check", config.method);
  return nullptr;
}

}  // namespace tessera
