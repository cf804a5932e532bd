#include <fmt/format.h>

#include <array>
#include <utility>

#include "core/error.h"
#include "kernels/counting.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/far/far_kernels.h"
#include "kernels/reference/reference_kernels.h"

namespace tessera {
namespace {

/// The backends of devices other than the CPU: one each, of the device's name.
constexpr std::pair<Device::Kind, const Kernels& (*)()> kOfDevices[] = {
    {Device::Kind::far, far::table},
};

}  // namespace

const Kernels& kernels_for(Device device, std::string_view backend) {
  if (device.kind == Device::Kind::cuda || backend == "cuda")
    throw UserError("", "this program was built without CUDA",
                    "set run.device = \"cpu\", or configure with a CUDA toolkit");
  for (const auto& [kind, table] : kOfDevices) {
    if (device.kind != kind || backend == "counting") continue;
    if (backend.empty() || backend == table().backend) return table();
    throw UserError("", fmt::format("the {} device has no backend \"{}\"", table().backend, backend),
                    "leave run.backend out");
  }
  const std::array<const Kernels*, 3> tables{&cpu::table(), &reference::table(), &counting::table()};
  if (backend.empty()) return *tables.front();
  std::vector<std::string> names;
  for (const Kernels* table : tables) {
    if (table->backend == backend) return *table;
    names.emplace_back(table->backend);
  }
  std::string hint = fmt::format("known backends: {}", fmt::join(names, ", "));
  if (const std::string nearest = nearest_name(backend, names); !nearest.empty())
    hint += fmt::format("\ndid you mean \"{}\"?", nearest);
  throw UserError("", fmt::format("unknown backend \"{}\"", backend), hint);
}

}  // namespace tessera
