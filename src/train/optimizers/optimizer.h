#pragma once
// Optimizers walk flat memory; they know neither models nor sharing methods. One file each; registry.cpp lists them.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/rules.h"
#include "kernels/context.h"
#include "model/parameter_pool.h"
#include "train/train_config.h"

namespace tessera {

struct StepInfo {
  int64_t step;  // 1, 2, ...
  float lr;
  float grad_scale;  // multiplies the stored gradients: 1 / tokens, times the clip factor
};

/// 1 − β1^t and 1 − β2^t, which Adam's means of t steps are divided by. Whoever counts the steps gives them: a run of
/// SPSA has products of β in its log's bits, a run of gradients powers.
struct BiasCorrections {
  double first = 1, second = 1;
};

/// What a step is taken with, the same for every run of it.
struct RunStep {
  float lr, grad_scale;
  BiasCorrections corrections{};
};

/// Neighbouring elements of one slot: all of them, or those whose gradients are in memory at the time.
struct SlotRun {
  const TrainableSlot& slot;
  int64_t begin;      // the first one's place in the slot
  TensorView values;  // [n] f32
  ConstView grads;    // [n] f32

  int64_t end() const { return begin + values.shape.count(); }
  /// The same elements of a vector that is laid out like the flat values.
  TensorView of(const TensorView& flat) const { return flat.slice_rows(slot.begin + begin, slot.begin + end()); }
};

class Optimizer {
 public:
  explicit Optimizer(const OptimizerConfig& config) : config_(config) {}
  virtual ~Optimizer() = default;
  /// A step of every slot.
  void step(const Context&, FlatParams&, const StepInfo&);
  /// A step of one run, with the run's part of the state. The runs that a slot is cut into do not show in its bits.
  virtual void step_run(const Context&, const SlotRun&, const RunStep&) = 0;
  /// Whether a step does no more than add a multiple of the gradient to the weights: several steps then are one sum.
  virtual bool is_linear() const { return false; }
  /// Shows every state vector ([count] f32 like the flat values, on their device) by name: checkpoints save and load
  /// through it, and digests of replicas go through it in this order.
  virtual void visit_state(const std::function<void(const std::string& name, TensorView)>&) = 0;
  int64_t state_bytes();

 protected:
  const OptimizerConfig config_;
};

struct OptimizerKind {
  std::string_view name, help;
  std::vector<std::string_view> keys;  // of [optimizer], those that not every kind reads
  std::unique_ptr<Optimizer> (*make)(const OptimizerConfig&, int64_t count, Rules, Device);
  int64_t (*state_vectors)(const OptimizerConfig&);  // that visit_state will show
  bool is_adaptive = false;                          // reads TrainableSlot::adaptive_steps

  bool reads(std::string_view key) const;
};
const std::vector<OptimizerKind>& optimizer_kinds();
/// nullptr: no kind has the name.
const OptimizerKind* find_optimizer_kind(std::string_view name);
/// The kind that a recipe names, whose check has passed.
const OptimizerKind& optimizer_kind(const OptimizerConfig&);
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig&, int64_t count, Rules = kNewestRules, Device = {});
/// The kind that keeps the least state with these settings; nullptr when the one that they name keeps no more.
const OptimizerKind* smaller_optimizer(const OptimizerConfig&);
/// Whether weights only ever gain multiples of gradients: the steps are linear, and nothing decays.
bool adds_gradients_only(const OptimizerConfig&);
/// The first kind whose steps are linear once momentum is 0.
const OptimizerKind& linear_optimizer();
/// Optimizer::state_bytes of the optimizer that make_optimizer would make.
int64_t optimizer_state_bytes(const OptimizerConfig&, int64_t count);

/// Learning rate of `step` (1, 2, ...) of `total`, as transformers' schedules have it: with s = step − 1 a factor
/// s / warmup while s < warmup, then constant 1, or from 1 down to final_ratio by a line or half a cosine over the
/// remaining steps.
double learning_rate(const OptimizerConfig&, int64_t step, int64_t total, Rules = kNewestRules);

/// Steps of linear warm-up of a run of `total` steps.
int64_t warmup_steps(const OptimizerConfig&, int64_t total, Rules = kNewestRules);

}  // namespace tessera
