#include "model/sharing/fold_slots.h"

#include "core/error.h"
#include "model/sharing/binding.h"
#include "model/sharing_io.h"

namespace tessera {
namespace {

Init written_by(const std::function<void(TensorView)>& write) {
  Init init;
  init.formula = [write](TensorView values, uint64_t) { write(values); };
  return init;
}

}  // namespace

FoldSlots::FoldSlots(ParameterPool& pool, const BaseOptions& options, const FoldMaking& making, const FoldPlan& plan)
    : pool_(pool), options_(options), making_(making), plan_(plan) {
  for (const VirtualLayer& layer : virtual_layers(plan)) group_.push_back(static_cast<size_t>(layer.group));
}

bool FoldSlots::trains(const WeightSpec& kept) const {
  if (!is_trained(kept, options_)) return false;
  const bool in_block = kept.layer >= 0;
  switch (making_.training) {
    case FoldTraining::everything:
      return true;
    case FoldTraining::own:
      return in_block && kept.role != Role::linear;
    case FoldTraining::replaced:
      return in_block && group_of(kept).values == GroupValues::trained;
  }
  return false;
}

SlotId FoldSlots::tensor(const std::string& slot, const WeightSpec& kept) const {
  const bool is_linear = kept.layer >= 0 && kept.role == Role::linear;
  const auto start = making_.starts.find(slot);
  if (options_.saved || start == making_.starts.end()) {
    const bool is_mean =
        is_linear && (group_of(kept).values == GroupValues::mean || group_of(kept).values == GroupValues::wmean);
    TS_CHECK(options_.saved || !options_.source || !is_mean, "the mean weights of \"{}\" are not given", slot);
    return bind_tensor(slot, kept, trains(kept), pool_, options_);
  }
  return pool_.reserve(slot, {.shape = kept.shape,
                              .trainable = trains(kept),
                              .init = written_by(start->second),
                              .weight_decay = kept.role != Role::norm && kept.role != Role::bias,
                              .storage = options_.source ? source_of(*options_.source, kept).dtype : options_.storage});
}

SlotId FoldSlots::own(const std::string& slot, SlotOptions asked) const {
  asked.trainable = options_.trainable && making_.training != FoldTraining::replaced;
  const bool is_new = making_.cure && slot.starts_with("fold.cure.");  // a saved model's cure begins
  if (options_.saved && !is_new)
    return bind_slot(slot, std::move(asked), pool_, options_,
                     [&](int64_t i) { return fmt::format("element {} of \"{}\"", i, slot); });
  if (const auto start = making_.starts.find(slot); start != making_.starts.end())
    asked.init = written_by(start->second);
  return pool_.reserve(slot, std::move(asked));
}

}  // namespace tessera
