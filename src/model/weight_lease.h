#pragma once
// Leases: whoever reads weights says so, and for how long.
//
// A weight whose bytes lie in memory at all times (a slot of the pool, a mapped file) takes no notice. A view whose
// bytes come and go (read from disk a layer ahead, unpacked, sent by another rank) overrides WeightView::acquire and
// release and is otherwise a view like others. The decoder leases a layer for as long as it runs it, so that two layers
// in memory are enough, and a view sees in which order layers are wanted.

#include <utility>
#include <vector>

#include "model/weights.h"

namespace tessera {

/// One view, readable for as long as this lives. The view outlives it.
class ViewLease {
 public:
  explicit ViewLease(const WeightView& view) : view_(&view) { view.acquire(); }
  ViewLease(ViewLease&& other) noexcept : view_(std::exchange(other.view_, nullptr)) {}
  ViewLease& operator=(ViewLease&&) = delete;
  ~ViewLease() {
    if (view_) view_->release();
  }

 private:
  const WeightView* view_;
};

/// All that a piece of a pass reads.
using WeightLease = std::vector<ViewLease>;

}  // namespace tessera
