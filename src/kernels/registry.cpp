#include <fmt/format.h>

#include <array>

#include "core/error.h"
#include "kernels/counting.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/reference/reference_kernels.h"

namespace tessera {

const Kernels& kernels_for(Device device, std::string_view backend) {
  if (device.kind == Device::Kind::cuda || backend == "cuda")
    throw UserError("", "this program was built without CUDA",
                    "choose device = \"cpu\", or configure with a CUDA toolkit");
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

Context counting_context(Arena& arena, int threads) {
  return {.device = {}, .stream = {}, .kernels = kernels_for({}, "counting"), .scratch = arena, .threads = threads};
}

}  // namespace tessera
