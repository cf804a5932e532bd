#include "model/sharing/fold_starts.h"

#include <cstdlib>

#include "core/error.h"

namespace tessera {
namespace {

constexpr std::string_view kGroup = "fold.group.";

bool is_beside_base(const std::string& slot, const FoldPlan& plan) {
  if (!slot.starts_with("fold.")) return false;
  if (!slot.starts_with(kGroup)) return true;
  const auto group = static_cast<size_t>(std::strtoull(slot.c_str() + kGroup.size(), nullptr, 10));
  TS_CHECK(group < plan.groups.size(), "\"{}\" is of no group of the plan", slot);
  return plan.groups[group].values != GroupValues::own;
}

}  // namespace

std::map<std::string, std::function<void(TensorView)>> starts_beside_base(
    const std::shared_ptr<const SafetensorsReader>& saved, const FoldPlan& plan) {
  std::map<std::string, std::function<void(TensorView)>> starts;
  for (const std::string& slot : saved->names())
    if (is_beside_base(slot, plan))
      starts[slot] = [saved, slot](TensorView values) {
        Init init;
        init.source = saved->at(slot);
        init.file = saved->file_of(slot);
        write_first_values(init, 0, slot, values);
      };
  return starts;
}

}  // namespace tessera
