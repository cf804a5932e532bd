#include "kernels/compute.h"

#include <algorithm>

#include "core/device/memory.h"
#include "core/error.h"
#include "kernels/table.h"

namespace tessera {
namespace {

constexpr std::string_view kAuto = "auto";

}  // namespace

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
  const auto& kinds = device_kinds();
  if (name == kAuto) return {.kind = kinds.front().kind};
  const auto found = std::find_if(kinds.begin(), kinds.end(), [&](const DeviceKind& k) { return k.name == name; });
  TS_CHECK(found != kinds.end(), "device \"{}\" passed the recipe's check", name);
  return {.kind = found->kind};
}

std::vector<std::string> device_choices() {
  std::vector<std::string> names{std::string(kAuto)};
  for (const DeviceKind& kind : device_kinds()) names.emplace_back(kind.name);
  return names;
}

std::string device_help() {
  std::string text = fmt::format("{}: the best that this program and machine have, which today is the {}", kAuto,
                                 device_kinds().front().name);
  for (const DeviceKind& kind : device_kinds())
    if (!kind.help.empty()) text += fmt::format("; {}: {}", kind.name, kind.help);
  return text;
}

}  // namespace tessera
