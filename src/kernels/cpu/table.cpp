#include "kernels/cpu/cpu_kernels.h"
#include "kernels/reference/reference_kernels.h"

namespace tessera::cpu {

const Kernels& table() {
  static const Kernels kTable = [] {
    Kernels table = reference::table();
    table.backend = "cpu";
    return table;
  }();
  return kTable;
}

}  // namespace tessera::cpu
