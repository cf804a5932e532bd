#pragma once
// The physical parameters: named slots of one flat trainable memory, and frozen slots that stay where they are stored.

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/rules.h"
#include "core/storage.h"
#include "io/mapped_file.h"

namespace tessera {

/// How a slot gets its first values. A formula wins over a source (a stored tensor), which wins over a draw.
struct Init {
  enum class Kind { zeros, ones, normal, uniform } kind = Kind::zeros;
  double scale = 0;                          // standard deviation, or the bound of a uniform draw
  ConstView source;                          // converted to the slot's dtype
  std::shared_ptr<const MappedFile> file{};  // that source lies in: its pages are let go as they are copied
  std::function<void(TensorView values, uint64_t seed)> formula{};
};

/// Writes the first values of a tensor of that name: its source, or draws keyed by (seed, name, element).
void write_first_values(const Init&, uint64_t seed, const std::string& name, TensorView values, Rules = kNewestRules);

/// A run of a slot's elements, up to `end`, and what multiplies the steps of optimizers whose steps do not grow with
/// the gradient (AdamW); SGD knows nothing of it. A slot whose elements are each read by many weights has others than
/// 1.
struct StepPiece {
  int64_t end;
  float scale;
};

/// A named run of a slot's elements, up to `end`. The gradient's norm is summed part by part in order of name, so that
/// it does not depend on where parts lie.
struct SlotPart {
  std::string name;
  int64_t end;
};

struct SlotOptions {
  Shape shape;
  bool trainable = true;
  Init init;
  bool weight_decay = true;                 // norms are never decayed
  float step_scale = 1;                     // multiplies the optimizer's step
  DType storage = DType::f32;               // of a frozen slot
  std::vector<StepPiece> adaptive_steps{};  // ends ascend, the last is the slot's; empty: 1
  std::vector<SlotPart> parts{};            // ends ascend, the last is the slot's; empty: one part, the slot
};

using SlotId = int;

/// One trainable slot as optimizers and checkpoints see it.
struct TrainableSlot {
  std::string name;
  Shape shape;
  int64_t begin;  // in the flat memory
  bool weight_decay;
  float step_scale;
  std::vector<StepPiece> adaptive_steps{};
};

/// Calls f(begin, end, scale) for the runs of elements [begin, end) of the slot that take adaptive steps of one scale.
template <class F> void for_each_adaptive_step(const TrainableSlot& slot, int64_t begin, int64_t end, F&& f) {
  for (const StepPiece& piece : slot.adaptive_steps) {
    if (begin >= end) return;
    if (piece.end <= begin) continue;
    const int64_t stop = std::min(end, piece.end);
    f(begin, stop, slot.step_scale * piece.scale);
    begin = stop;
  }
  if (begin < end) f(begin, end, slot.step_scale);
}

/// A run of the flat memory.
struct FlatRange {
  int64_t begin, end;
};

/// The trainable memory of a pool, whole. Slots lie in order of name, each from a multiple of kSlotAlignment elements;
/// the gaps are zero and stay zero.
struct FlatParams {
  TensorView values, grads;  // [count] in the pool's dtype; grads is empty without gradients
  std::vector<TrainableSlot> slots;
  std::vector<FlatRange> parts;  // of all slots, in order of the parts' names
};

class ParameterPool {
 public:
  static constexpr int64_t kSlotAlignment = 128;
  /// @param dtype   of trainable values and their gradients: f32, or f64 for gradient checks
  /// @param memory  counted: `allocate` lays out and counts, and neither takes memory nor draws or reads a value
  explicit ParameterPool(DType dtype = DType::f32, Memory memory = Memory::held, Device device = {})
      : storage_(memory, device), dtype_(dtype) {}

  SlotId reserve(std::string name, SlotOptions);
  /// A frozen slot that is read where the file was mapped: one copy for all ranks of a node.
  SlotId adopt(std::string name, ConstView mapped, std::shared_ptr<const MappedFile>);
  /// Lays out and initialises everything; draws are keyed by (seed, slot name, element).
  /// No slot may be added afterwards.
  /// @param gradients  memory for them, too; forward-only training does without
  enum class Gradients { yes, no };
  void allocate(uint64_t seed, Gradients gradients = Gradients::yes, Rules rules = kNewestRules);

  ConstView values(SlotId) const;
  TensorView mutable_values(SlotId);
  TensorView grads(SlotId);                                    // trainable slots only; empty without gradients
  int64_t begin(SlotId id) const { return slots_[id].begin; }  // of a trainable slot, in the flat memory
  bool is_trainable(SlotId id) const { return slots_[id].trainable; }
  const std::string& name(SlotId id) const { return slots_[id].name; }
  SlotId count() const { return static_cast<SlotId>(slots_.size()); }
  DType dtype() const { return dtype_; }
  Memory memory() const { return storage_.memory(); }
  Device device() const { return storage_.device(); }

  const FlatParams& trainable() const { return flat_; }
  FlatParams& trainable() { return flat_; }
  void zero_grads();
  int64_t trainable_count() const;  // without the gaps
  int64_t frozen_count() const;
  int64_t frozen_mapped_bytes() const;
  int64_t owned_bytes() const { return storage_.bytes(); }  // values, gradients and frozen tensors that lie in no file

 private:
  struct Slot {
    std::string name;
    bool trainable;
    SlotOptions options;
    bool in_file = false;  // frozen, and read where it lies
    int64_t begin = 0;
    ConstView frozen;
    std::shared_ptr<const MappedFile> file;
  };
  void lay_out();
  void upload_slot(Slot&);
  std::vector<Slot> slots_;
  FlatParams flat_;
  Storage storage_;
  DType dtype_;
  bool allocated_ = false;
};

}  // namespace tessera
