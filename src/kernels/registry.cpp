#include <fmt/format.h>

#include <array>

#include "core/error.h"
#include "kernels/counting.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/far/far_kernels.h"
#include "kernels/reference/reference_kernels.h"

namespace tessera {

const Kernels& kernels_for(Device device, std::string_view backend) {
  if (device.kind == Device::Kind::cuda || backend == "cuda")
    throw UserError("", "this program was built without CUDA",
                    "choose device = \"cpu\", or configure with a CUDA toolkit");
  if (device.kind == Device::Kind::far && backend != "counting") {
    if (backend.empty() || backend == "far") return far::table();
    throw UserError("", fmt::format("the far device has no backend \"{}\"", backend), "leave run.backend out");
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
