#include "train/gradients.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/device/memory.h"
#include "kernels/elementwise.h"

namespace tessera {
namespace {

/// Numbers of all slots, without the gaps between them.
int64_t numbers_of(const FlatParams& params) {
  int64_t count = 0;
  for (const TrainableSlot& slot : params.slots) count += slot.shape.count();
  return count;
}

}  // namespace

void all_reduce_grads(Communicator& world, FlatParams& params) {
  // Alone, no slot has to move: the call counts the bytes that a rank of many would send.
  if (world.size() == 1) return world.all_reduce_sum_view(params.grads.slice_rows(0, numbers_of(params)));
  const EditedOnHost host(params.grads);
  const auto grads = host.as<float>();
  const auto move = [&](int64_t from, int64_t count, int64_t to) {
    std::memmove(&grads[to], &grads[from], static_cast<size_t>(count) * sizeof(float));
  };
  // Towards the front, first slot first: a slot moves to where it was or below, and overwrites nothing that is still
  // needed.
  int64_t packed = 0, end = params.grads.shape.count();
  for (const TrainableSlot& slot : params.slots) {
    move(slot.begin, slot.shape.count(), packed);
    packed += slot.shape.count();
  }
  world.all_reduce_sum(grads.first(static_cast<size_t>(packed)));
  // And back, last slot first, for the same reason.
  for (auto slot = params.slots.rbegin(); slot != params.slots.rend(); ++slot) {
    packed -= slot->shape.count();
    move(packed, slot->shape.count(), slot->begin);
    std::fill(grads.begin() + slot->begin + slot->shape.count(), grads.begin() + end, 0.0f);  // the gap
    end = slot->begin;
  }
}

double squared_norm(const Context& ctx, const FlatParams& params) {
  const auto count = static_cast<int64_t>(params.parts.size());
  // One sum for each part of the flat gradients, all brought to the host together.
  const Tensor sums({count}, DType::f64, ctx.device);
  for (int64_t i = 0; i < count; ++i) {
    const FlatRange& part = params.parts[static_cast<size_t>(i)];
    sum_of_squares(ctx, params.grads.slice_rows(part.begin, part.end), sums.view().slice_rows(i, i + 1));
  }
  const OnHost parts(sums);
  const auto squares = parts.as<double>();
  return std::accumulate(squares.begin(), squares.end(), 0.0);
}

}  // namespace tessera
