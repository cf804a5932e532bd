#include "infer/row_groups.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {
namespace {

bool reads_base(const BatchPlan& plan) {
  return std::any_of(plan.weights.begin(), plan.weights.end(),
                     [](const TokenWeights& w) { return w.adapter == 0 || w.from > 0; });
}

}  // namespace

std::vector<BoundAdapter*> adapters_of(const BatchPlan& plan, Model& model,
                                       const std::map<std::string, BoundAdapter*>& adapters) {
  std::vector<BoundAdapter*> bound;
  for (const std::string& name : plan.adapters) {
    const auto found = adapters.find(name);
    const bool is_base = bound.empty();
    TS_CHECK(found != adapters.end() || name.empty() || (is_base && (!model.bound_adapter() || !reads_base(plan))),
             "the adapter \"{}\" is not there", name);
    bound.push_back(found != adapters.end() ? found->second : is_base ? nullptr : model.bound_adapter());
  }
  return bound;
}

std::vector<RowGroup> row_groups(const Schedule& schedule, std::span<const Work> work,
                                 std::span<const int32_t> first_rows, std::span<const TokenWeights> weights,
                                 std::span<BoundAdapter* const> adapters) {
  std::vector<RowGroup> groups;
  const auto add = [&](int64_t begin, int64_t end, int32_t number) {
    BoundAdapter* adapter = adapters[static_cast<size_t>(number)];
    if (begin == end) return;
    if (!groups.empty() && groups.back().adapter == adapter)
      groups.back().end = end;
    else
      groups.push_back({begin, end, adapter});
  };
  for (size_t i = 0; i < work.size(); ++i) {
    const Work& w = work[i];
    const int32_t r =
        w.node >= 0 ? schedule.tree().nodes[static_cast<size_t>(w.node)].request : schedule.request_of(w.sequence);
    const TokenWeights& own = weights[static_cast<size_t>(r)];
    const int64_t begin = first_rows[i], end = first_rows[i + 1];
    const int64_t split = begin + std::clamp<int64_t>(own.from - w.begin, 0, end - begin);
    add(begin, split, 0);
    add(split, end, own.adapter);
  }
  return groups;
}

}  // namespace tessera
