// One element at a time: a Philox call for each, of whose eight 16-bit lanes one is looked at. Slow, and independent of
// how rows and columns are shared out.

#include <cmath>

#include "core/random.h"
#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

bool is_kept(const DropoutKey& key, int64_t draw_index, int64_t column) {
  // As the contract writes it: seed and step make the key; token, column / 8 and weight the counter; each of the four
  // words holds two columns' 16-bit lanes.
  const uint64_t bits = mix64(mix64(key.seed) ^ key.step), draw = static_cast<uint64_t>(draw_index);
  const auto words = philox4x32(
      {static_cast<uint32_t>(draw), static_cast<uint32_t>(draw >> 32), static_cast<uint32_t>(column / 8), key.weight},
      {static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)});
  const uint32_t lane = words[column % 8 / 2] >> (16 * (column % 2)) & 0xffffu;
  return lane >= static_cast<uint32_t>(std::lround(static_cast<double>(key.probability) * 65536));
}

}  // namespace

void dropout(const Context&, ConstView x, const DropoutKey& key, TensorView y, Write write) {
  with_compute_type(x.dtype, [&](auto t) {
    using T = decltype(t);
    // Inverted dropout: what is kept is scaled up here, and an evaluation scales nothing.
    const T scale = T{1} / (T{1} - static_cast<T>(key.probability));
    for (int64_t r = 0; r < x.rows(); ++r) {
      for (int64_t c = 0; c < x.cols(); ++c) {
        const T kept = is_kept(key, key.draw_index[r], c) ? x.row<T>(r)[c] * scale : T{0};
        T& out = y.row<T>(r)[c];
        out = write == Write::assign ? kept : out + kept;
      }
    }
  });
}

}  // namespace tessera::reference
