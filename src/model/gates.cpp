#include "model/gates.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/elementwise.h"

namespace tessera {

template <class F> void Gate::for_each_group(F&& f) const {
  for (const RowGroup& group : pass_.batch.groups) f(value(group), group.begin, group.end);
}

Gate::Path Gate::path() const {
  if (!exists_) return Path::ordinary;
  if (pass_.ctx.scratch.is_counting()) return Path::separate;
  const auto all = [&](double gate) {
    return std::ranges::all_of(pass_.batch.groups, [&](const RowGroup& group) { return value(group) == gate; });
  };
  return all(1) ? Path::ordinary : all(0) ? Path::skipped : Path::separate;
}

void Gate::add(ConstView part, TensorView out) const {
  for_each_group([&](double gate, int64_t begin, int64_t end) {
    if (gate != 0) scale(pass_.ctx, gate, part.slice_rows(begin, end), out.slice_rows(begin, end), Write::accumulate);
  });
}

void Gate::add_gradient(ConstView dout, ConstView part, ConstView before) const {
  if (pass_.gate_grads.empty()) return;
  const auto place = static_cast<int64_t>(place_);
  add_dot(pass_.ctx, dout, part, before, pass_.gate_grads.slice_rows(place, place + 1));
}

void Gate::scale_gradient(ConstView dout, TensorView dpart) const {
  for_each_group([&](double gate, int64_t begin, int64_t end) {
    scale(pass_.ctx, gate, dout.slice_rows(begin, end), dpart.slice_rows(begin, end), Write::assign);
  });
}

void Gate::add_rest(ConstView dout, TensorView dx) const {
  for_each_group([&](double gate, int64_t begin, int64_t end) {
    scale(pass_.ctx, 1 - gate, dout.slice_rows(begin, end), dx.slice_rows(begin, end), Write::accumulate);
  });
}

LayerGates layer_gates(const Pass& pass, int layer) {
  const auto place = static_cast<size_t>(layer);
  const Gate none(pass);
  const BlockGates::Of of = gated(pass.batch);
  if (of == BlockGates::Of::nothing) return {none, none, none};
  const size_t count = pass.batch.groups.front().gates.values.size(),
               wanted = of == BlockGates::Of::blocks ? place + 1 : 2 * place + 2;
  TS_CHECK(wanted <= count, "layer {} is not among {} gates", layer, count);
  if (of == BlockGates::Of::blocks) return {Gate(pass, place), none, none};
  return {none, Gate(pass, 2 * place), Gate(pass, 2 * place + 1)};
}

BlockGates::Of gated(const TokenBatch& batch) {
  if (batch.groups.empty()) return BlockGates::Of::nothing;
  const BlockGates& first = batch.groups.front().gates;
  for (const RowGroup& group : batch.groups)
    TS_CHECK(group.gates.of == first.of && group.gates.values.size() == first.values.size(),
             "groups of rows have {} and {} gates", first.values.size(), group.gates.values.size());
  return first.of;
}

}  // namespace tessera
