#include "kernels/optimizer_steps.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

class Sgd final : public Optimizer {
 public:
  Sgd(const OptimizerConfig& config, int64_t count, Device device)
      : config_(config), velocity_({config.momentum > 0 ? count : 0}, DType::f32, device) {}

  void step(const Context& ctx, FlatParams& params, const StepInfo& info) override {
    for (const TrainableSlot& slot : params.slots) {
      const int64_t begin = slot.begin, end = slot.begin + slot.shape.count();
      const TensorView velocity = config_.momentum > 0 ? velocity_.view().slice_rows(begin, end) : TensorView();
      sgd_step(ctx, {.values = params.values.slice_rows(begin, end),
                     .grads = params.grads.slice_rows(begin, end),
                     .momentum_buffer = velocity,
                     .lr = info.lr,
                     .momentum = static_cast<float>(config_.momentum),
                     .weight_decay = slot.weight_decay ? static_cast<float>(config_.weight_decay) : 0.0f,
                     .step_scale = slot.step_scale,
                     .grad_scale = info.grad_scale});
    }
  }

  void visit_state(const std::function<void(const std::string&, TensorView)>& visit) override {
    if (config_.momentum > 0) visit("velocity", velocity_);
  }

 private:
  OptimizerConfig config_;
  Tensor velocity_;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(const OptimizerConfig& config, int64_t count, Rules, Device device) {
  return std::make_unique<Sgd>(config, count, device);
}

}  // namespace tessera
