// With momentum there is one vector of state, the velocity; without it a step only adds a multiple of the gradient, and
// steps may be added up.

#include "kernels/optimizer_steps.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

class Sgd final : public Optimizer {
 public:
  Sgd(const OptimizerConfig& config, int64_t count, Device device)
      // Without momentum there is no state at all.
      : Optimizer(config), velocity_({config.momentum > 0 ? count : 0}, DType::f32, device) {}

  void step_run(const Context& ctx, const SlotRun& run, const RunStep& step) override {
    sgd_step(ctx, {.values = run.values,
                   .grads = run.grads,
                   .momentum_buffer = is_linear() ? TensorView() : run.of(velocity_),
                   .lr = step.lr,
                   .momentum = static_cast<float>(config_.momentum),
                   // Norms and biases do not decay.
                   .weight_decay = run.slot.weight_decay ? static_cast<float>(config_.weight_decay) : 0.0f,
                   .step_scale = run.slot.step_scale,
                   .grad_scale = step.grad_scale});
  }

  bool is_linear() const override { return config_.momentum == 0; }

  void visit_state(const std::function<void(const std::string&, TensorView)>& visit) override {
    if (!is_linear()) visit("velocity", velocity_);
  }

 private:
  Tensor velocity_;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(const OptimizerConfig& config, int64_t count, Rules, Device device) {
  return std::make_unique<Sgd>(config, count, device);
}

}  // namespace tessera
