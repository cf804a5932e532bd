#pragma once
// Folded models (docs/foldgpt.md): fewer layers than the model that they are made of, groups of which read one block.
//
// A layer of a folded model, a virtual layer, has a number (KV cache, adapters, norms), an original index (its place
// in the model that was folded) and a storage (the group whose linears it reads):
//
//   fold.group.<group>.<type>.weight          linears, once a group; frozen ones of the parent stay in the base's file
//   fold.layer.<number>.<norm>.weight         norms, and biases as .<type>.bias: every layer's own but at level "tie"
//   fold.layer.<number>.<type>.gain           of a child, from level "scale" on
//   fold.layer.<number>.<type>.lora_a, .lora_bt   of a child at level "lora"
//   fold.mos.<type>.pool_a, .pool_b           of all children at level "mos"
//   fold.cure.<slot>                          the deltas of the cure: an adapter's slots under its own names
//
// What lies outside blocks keeps its name. No slot is called model.layers.N: a program that does not know the plan
// finds no layers, rather than wrong ones.

#include <functional>
#include <map>
#include <optional>

#include "model/fold/plan.h"
#include "model/sharing/adapter.h"
#include "model/sharing/base.h"

namespace tessera {

/// What is trained of a folded model whose base is trained at all (BaseOptions::trainable).
enum class FoldTraining {
  everything,  // every stored number; the gradients of a group's layers add up
  own,         // norms, biases, gains and deltas: the layers' own. The groups and what lies outside blocks are frozen
  replaced     // the blocks whose values are "trained", alone
};

/// How far a folded model has come.
struct FoldState {
  std::string name = "removed";                // "removed", "shared" or "cured"
  std::map<std::string, double> perplexity{};  // by the point where it was measured: "original", .., "cured"
};

/// How a folded model is made of a dense one, or what is added to a saved one. job = "compress" says it; no recipe
/// does.
struct FoldMaking {
  FoldPlan plan;  // of a saved model its own is taken
  FoldState state;
  FoldTraining training = FoldTraining::everything;
  /// First values of slots, written into a view of f32, f64, bf16 or f16 (set_element). A slot without an entry has
  /// the base's tensor of its parent or itself; gains are 1 and deltas add nothing.
  std::map<std::string, std::function<void(TensorView)>> starts{};
  std::optional<AdapterConfig> cure{};  // deltas that the cure trains: they belong to the model
  bool is_assumed = false;              // the plan stands for one that is not known yet, of a model that is laid out
};

/// The base of a folded model.
class FoldedBase : public BaseSharing {
 public:
  virtual const FoldPlan& plan() const = 0;
  virtual const FoldState& state() const = 0;
  /// What a save says from now on.
  virtual void set_state(FoldState) = 0;
};
/// nullptr of any other base.
FoldedBase* folded_base(BaseSharing&);

/// A folded model of SharingConfig::load, or of a dense model by SharingConfig::making.
/// @throws UserError with neither of them; for a plan that is missing or at fault
std::unique_ptr<BaseSharing> make_fold(const SharingConfig&, const KeyPlaces& where);

}  // namespace tessera
