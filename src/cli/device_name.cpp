#include "cli/device_name.h"

#include <algorithm>

#include "core/device/memory.h"
#include "core/error.h"
#include "kernels/compute.h"

namespace tessera {

std::string device_name(const JobInputs& in) {
  const Device device = device_of(in.config.run.device);
  const auto& kinds = device_kinds();
  const auto kind =
      std::find_if(kinds.begin(), kinds.end(), [&](const DeviceKind& k) { return k.kind == device.kind; });
  TS_CHECK(kind != kinds.end(), "device_of gave a device that is none of device_kinds");
  return std::string(kind->name);
}

}  // namespace tessera
