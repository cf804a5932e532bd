#pragma once
// Layers that read one block: what depth sharing and folded models have in common.

#include <map>

#include "model/fold/plan.h"
#include "model/sharing/base.h"

namespace tessera {

/// For each layer of a model, by its number, the layer whose linears it reads: its own where it reads its own.
struct LayerGroups {
  std::vector<int> keeper;
  bool shares_vectors = false;  // norms and biases are the keeper's, too
  bool is_assumed = false;      // they stand for others that are not known yet: train.freeze may name a part of one

  /// Of a plan: the keeper is the group's parent, or its first layer where it has none. At level "tie" children have
  /// nothing of their own.
  static LayerGroups of(const FoldPlan&);
};

/// Binds the weights of grouped layers: every linear of a group is one slot, whose gradient is the sum over the layers
/// that read it, last layer first.
class GroupedWeights {
 public:
  /// @param method  in messages
  GroupedWeights(LayerGroups groups, std::string method) : groups_(std::move(groups)), method_(std::move(method)) {}

  using SlotName = std::function<std::string(const WeightSpec& kept)>;
  using BindSlot = std::function<SlotId(const std::string& name, const WeightSpec& kept)>;
  /// One weight a spec, in their order; slots are bound as their first readers come.
  /// @param name  of the slot that holds a keeper's spec
  /// @param bind  makes that slot
  /// @throws UserError when train.freeze names some readers of a slot and not all
  std::vector<Weight> bind(std::span<const WeightSpec>, const ParameterPool&, const BaseOptions&, const SlotName& name,
                           const BindSlot& bind);

  int64_t held() const { return held_; }        // numbers of the slots
  int64_t weights() const { return weights_; }  // of the weights that are read from them
  /// The layers that read a slot, ascending; empty for other slots.
  std::span<const int> readers(const std::string& slot) const;

 private:
  void require_trained_alike(const WeightSpec& spec, const WeightSpec& kept, const BaseOptions&) const;
  LayerGroups groups_;
  std::string method_;
  int64_t held_ = 0, weights_ = 0;
  std::map<std::string, std::vector<int>> readers_;  // by slot
};

}  // namespace tessera
