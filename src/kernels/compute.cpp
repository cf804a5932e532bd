#include "kernels/compute.h"

#include "core/error.h"
#include "kernels/table.h"

namespace tessera {

Compute::Compute(Arena scratch, const Kernels& kernels, int threads)
    : scratch_(std::move(scratch)),
      context_{.device = scratch_.device(), .stream = {}, .kernels = kernels, .scratch = scratch_, .threads = threads} {
}

Compute::Compute(const Choice& choice, int64_t scratch_bytes)
    : Compute(Arena(scratch_bytes, choice.device), kernels_for(choice.device, choice.backend), choice.threads) {}

Compute Compute::counting(Device device, int threads) {
  return {Arena::counting(device), kernels_for(device, "counting"), threads};
}

Compute Compute::beside(const Context& ctx, int64_t scratch_bytes) {
  return {Arena(scratch_bytes, ctx.device), ctx.kernels, ctx.threads};
}

Device device_of(std::string_view name) {
  TS_CHECK(name == "auto" || name == "cpu" || name == "far", "device \"{}\" passed the recipe's check", name);
  return {.kind = name == "far" ? Device::Kind::far : Device::Kind::cpu};
}

}  // namespace tessera
