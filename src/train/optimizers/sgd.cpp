#include "kernels/optimizer_steps.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

class Sgd final : public Optimizer {
 public:
  Sgd(const OptimizerConfig& config, int64_t count)
      : config_(config), velocity_({config.momentum > 0 ? count : 0}, DType::f32) {}

  void step(const Context& ctx, FlatParams& params, const StepInfo& info) override {
    for (const TrainableSlot& slot : params.slots) {
      const auto begin = static_cast<size_t>(slot.begin), count = static_cast<size_t>(slot.shape.count());
      const auto velocity = config_.momentum > 0 ? velocity_.as<float>().subspan(begin, count) : std::span<float>();
      sgd_step(ctx, {.values = params.values.as<float>().subspan(begin, count),
                     .grads = params.grads.as<float>().subspan(begin, count),
                     .momentum_buffer = velocity,
                     .lr = info.lr,
                     .momentum = static_cast<float>(config_.momentum),
                     .weight_decay = slot.weight_decay ? static_cast<float>(config_.weight_decay) : 0.0f,
                     .step_scale = slot.step_scale,
                     .grad_scale = info.grad_scale});
    }
  }

  void visit_state(const std::function<void(const std::string&, std::span<float>)>& visit) override {
    if (config_.momentum > 0) visit("velocity", velocity_.as<float>());
  }

 private:
  OptimizerConfig config_;
  Tensor velocity_;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(const OptimizerConfig& config, int64_t count, Rules) {
  return std::make_unique<Sgd>(config, count);
}

}  // namespace tessera
