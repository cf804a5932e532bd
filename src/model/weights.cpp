#include "model/weights.h"

#include "core/random.h"
#include "kernels/elementwise.h"

namespace tessera {

void SliceView::gather(const Context& ctx, const PoolRead& read, TensorView w) const { convert(ctx, direct(read), w); }

void SliceView::scatter_add(const Context& ctx, ConstView dw, ParameterPool& pool) const {
  add(ctx, dw, pool.grads(slot_));
}

uint64_t SliceView::fingerprint() const {
  const int64_t parts[] = {slot_, shape_[0], shape_.rank > 1 ? shape_[1] : 1, trainable_};
  return fnv1a(parts, sizeof(parts));
}

}  // namespace tessera
