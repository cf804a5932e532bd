#pragma once
// A folded model's slots: what each holds at first, and whether it is trained.

#include "model/sharing/fold.h"

namespace tessera {

class FoldSlots {
 public:
  FoldSlots(ParameterPool& pool, const BaseOptions& options, const FoldMaking& making, const FoldPlan& plan);

  ParameterPool& pool() const { return pool_; }
  /// A tensor of the base: a group's linear, a layer's norm or bias, or what lies outside blocks. It comes from the
  /// folded model's file; else from FoldMaking::starts; else it is the base model's, where it lies when it is frozen.
  SlotId tensor(const std::string& slot, const WeightSpec& kept) const;
  /// What layers have of their own beside the base's tensors: a gain, a matrix of a delta. SlotOptions::init is for
  /// where neither file nor starts have it.
  SlotId own(const std::string& slot, SlotOptions) const;

 private:
  bool trains(const WeightSpec& kept) const;
  const FoldGroup& group_of(const WeightSpec& kept) const {
    return plan_.groups[group_[static_cast<size_t>(kept.layer)]];
  }

  ParameterPool& pool_;
  const BaseOptions& options_;
  const FoldMaking& making_;
  const FoldPlan& plan_;
  std::vector<size_t> group_;  // by layer
};

}  // namespace tessera
