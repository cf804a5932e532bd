#pragma once
// The physical parameters: named slots of one flat trainable memory, and frozen slots that stay where they are stored.

#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "io/mapped_file.h"

namespace tessera {

/// How a slot gets its first values. A source (a stored tensor) wins over a draw.
struct Init {
  enum class Kind { zeros, ones, normal, uniform } kind = Kind::zeros;
  double scale = 0;                          // standard deviation, or the bound of a uniform draw
  ConstView source;                          // converted to the slot's dtype
  std::shared_ptr<const MappedFile> file{};  // that source lies in: its pages are let go as they are copied
};

struct SlotOptions {
  Shape shape;
  bool trainable = true;
  Init init;
  bool weight_decay = true;    // norms are never decayed
  float step_scale = 1;        // multiplies the optimizer's step
  DType storage = DType::f32;  // of a frozen slot
};

using SlotId = int;

/// One trainable slot as optimizers and checkpoints see it.
struct TrainableSlot {
  std::string name;
  Shape shape;
  int64_t begin;  // in the flat memory
  bool weight_decay;
  float step_scale;
};

/// The trainable memory of a pool, whole. Slots lie in order of name, each from a multiple of kSlotAlignment elements; the gaps are zero and stay zero.
struct FlatParams {
  TensorView values, grads;  // [count] compute dtype; grads is empty without gradients
  std::vector<TrainableSlot> slots;
};

class ParameterPool {
 public:
  static constexpr int64_t kSlotAlignment = 128;
  /// @param compute  dtype of trainable values and gradients: f32, or f64 for gradient checks
  explicit ParameterPool(DType compute = DType::f32) : compute_(compute) {}

  SlotId reserve(std::string name, SlotOptions);
  /// A frozen slot that is read where the file was mapped: one copy for all ranks of a node.
  SlotId adopt(std::string name, ConstView mapped, std::shared_ptr<const MappedFile>);
  /// Lays out and initialises everything; draws are keyed by (seed, slot name, element). No slot may be added afterwards.
  /// @param gradients  memory for them, too; forward-only training does without
  enum class Gradients { yes, no };
  void allocate(uint64_t seed, Gradients gradients = Gradients::yes);

  ConstView values(SlotId) const;
  TensorView mutable_values(SlotId);
  TensorView grads(SlotId);                                    // trainable slots only; empty without gradients
  int64_t begin(SlotId id) const { return slots_[id].begin; }  // of a trainable slot, in the flat memory
  bool is_trainable(SlotId id) const { return slots_[id].trainable; }
  const std::string& name(SlotId id) const { return slots_[id].name; }
  DType compute() const { return compute_; }

  const FlatParams& trainable() const { return flat_; }
  FlatParams& trainable() { return flat_; }
  void zero_grads();
  int64_t trainable_count() const;  // without the gaps
  int64_t frozen_count() const;
  int64_t frozen_mapped_bytes() const;
  int64_t owned_bytes() const;  // values, gradients and frozen tensors that this process holds itself

 private:
  struct Slot {
    std::string name;
    bool trainable;
    SlotOptions options;
    int64_t begin = 0;
    ConstView frozen;
    Tensor owned;
    std::shared_ptr<const MappedFile> file;
  };
  void initialise(const Slot&, TensorView values, uint64_t seed) const;
  std::vector<Slot> slots_;
  FlatParams flat_;
  Tensor values_, grads_;
  DType compute_;
  bool allocated_ = false;
};

}  // namespace tessera
