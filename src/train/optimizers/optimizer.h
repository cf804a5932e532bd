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

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  virtual void step(const Context&, FlatParams&, const StepInfo&) = 0;
  /// Shows every state vector ([count] f32 like the flat values, on their device) by name:
  /// checkpoints save and load through it.
  virtual void visit_state(const std::function<void(const std::string& name, TensorView)>&) = 0;
  int64_t state_bytes();
};

struct OptimizerKind {
  std::string_view name, help;
  std::unique_ptr<Optimizer> (*make)(const OptimizerConfig&, int64_t count, Rules, Device);
  int64_t (*state_vectors)(const OptimizerConfig&);  // that visit_state will show
};
const std::vector<OptimizerKind>& optimizer_kinds();
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig&, int64_t count, Rules = kNewestRules, Device = {});
/// Optimizer::state_bytes of the optimizer that make_optimizer would make.
int64_t optimizer_state_bytes(const OptimizerConfig&, int64_t count);

std::unique_ptr<Optimizer> make_adamw(const OptimizerConfig&, int64_t count, Rules, Device);
std::unique_ptr<Optimizer> make_sgd(const OptimizerConfig&, int64_t count, Rules, Device);

/// Learning rate of `step` (1, 2, ...) of `total`, as transformers' schedules have it: with s = step − 1 a factor
/// s / warmup while s < warmup, then constant 1, or from 1 down to final_ratio by a line or half a cosine over the
/// remaining steps.
double learning_rate(const OptimizerConfig&, int64_t step, int64_t total, Rules = kNewestRules);

/// Steps of linear warm-up of a run of `total` steps.
int64_t warmup_steps(const OptimizerConfig&, int64_t total, Rules = kNewestRules);

}  // namespace tessera
