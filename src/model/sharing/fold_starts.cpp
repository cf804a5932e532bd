#include "model/sharing/fold_starts.h"

#include <cstdlib>
#include <cstring>

#include "core/error.h"

namespace tessera {
namespace {

constexpr std::string_view kGroup = "fold.group.";

/// Whether the tensors hold the same numbers.
bool are_equal(const ConstView& a, const ConstView& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())) == 0;
}

bool is_beside_base(const std::string& slot, const SafetensorsReader& saved, const FoldPlan& plan,
                    const SafetensorsReader* base) {
  if (!slot.starts_with("fold.")) return false;
  if (!slot.starts_with(kGroup)) return true;
  const size_t dot = slot.find('.', kGroup.size());
  const auto number = static_cast<size_t>(std::strtoull(slot.c_str() + kGroup.size(), nullptr, 10));
  TS_CHECK(number < plan.groups.size() && dot != std::string::npos, "\"{}\" is of no group of the plan", slot);
  const FoldGroup& group = plan.groups[number];
  if (group.values != GroupValues::own) return true;
  const std::string own =
      fmt::format("model.layers.{}{}", group.parent.value_or(group.blocks.front()), slot.substr(dot));
  return base && base->contains(own) && !are_equal(saved.at(slot), base->at(own));
}

}  // namespace

std::map<std::string, std::function<void(TensorView)>> starts_beside_base(
    const std::shared_ptr<const SafetensorsReader>& saved, const FoldPlan& plan, const SafetensorsReader* base) {
  std::map<std::string, std::function<void(TensorView)>> starts;
  for (const std::string& slot : saved->names())
    if (is_beside_base(slot, *saved, plan, base))
      starts[slot] = [saved, slot](TensorView values) {
        Init init;
        init.source = saved->at(slot);
        init.file = saved->file_of(slot);
        write_first_values(init, 0, slot, values);
      };
  return starts;
}

}  // namespace tessera
