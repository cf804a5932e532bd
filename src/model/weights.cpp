#include "model/weights.h"

#include "core/random.h"
#include "kernels/elementwise.h"
#include "kernels/votes.h"

namespace tessera {

ConstView PoolRead::values(SlotId slot) const {
  const ConstView own = pool->values(slot);
  if (flat.empty() || !pool->is_trainable(slot)) return own;
  const int64_t begin = pool->begin(slot);
  return flat.slice_rows(begin, begin + own.shape.count()).reshape(own.shape);
}

void SliceView::gather(const Context& ctx, const PoolRead& read, RowRange rows, TensorView w) const {
  const int64_t cols = shape_.rank == 2 ? shape_[1] : shape_.count(), count = (rows.end - rows.begin) * cols;
  const ConstView values = read.values(slot_).reshape({shape_.count()}).slice_rows(rows.begin * cols, rows.end * cols);
  const TensorView out = w.reshape({count});
  if (!read.z || !trainable_) return convert(ctx, values, out);
  perturb(ctx, values, read.pool->begin(slot_) + rows.begin * cols, *read.z, read.scale, out);
}

void SliceView::scatter_add(const Context& ctx, ConstView dw, ParameterPool& pool) const {
  add(ctx, dw, pool.grads(slot_));
}

uint64_t SliceView::fingerprint() const {
  const int64_t parts[] = {slot_, shape_[0], shape_.rank > 1 ? shape_[1] : 1, trainable_};
  return fnv1a(parts, sizeof(parts));
}

}  // namespace tessera
