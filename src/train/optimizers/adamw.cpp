#include <cmath>

#include "kernels/optimizer_steps.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(const OptimizerConfig& config, int64_t count, Rules rules, Device device)
      : config_(config), rules_(rules), m_({count}, DType::f32, device), v_({count}, DType::f32, device) {}

  void step(const Context& ctx, FlatParams& params, const StepInfo& info) override {
    for (const TrainableSlot& slot : params.slots)
      for_each_adaptive_step(slot, 0, slot.shape.count(), [&](int64_t from, int64_t to, float scale) {
        const int64_t begin = slot.begin + from, end = slot.begin + to;
        adamw_step(ctx, {.values = params.values.slice_rows(begin, end),
                         .grads = params.grads.slice_rows(begin, end),
                         .m = m_.view().slice_rows(begin, end),
                         .v = v_.view().slice_rows(begin, end),
                         .lr = info.lr,
                         .beta1 = static_cast<float>(config_.beta1),
                         .beta2 = static_cast<float>(config_.beta2),
                         .rest1 = rest_of(config_.beta1, rules_),
                         .rest2 = rest_of(config_.beta2, rules_),
                         .eps = static_cast<float>(config_.eps),
                         .weight_decay = slot.weight_decay ? static_cast<float>(config_.weight_decay) : 0.0f,
                         .step_scale = scale,
                         .grad_scale = info.grad_scale,
                         .correction1 = 1 - std::pow(config_.beta1, static_cast<double>(info.step)),
                         .correction2 = 1 - std::pow(config_.beta2, static_cast<double>(info.step))});
      });
  }

  void visit_state(const std::function<void(const std::string&, TensorView)>& visit) override {
    visit("m", m_);
    visit("v", v_);
  }

 private:
  OptimizerConfig config_;
  Rules rules_;
  Tensor m_, v_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(const OptimizerConfig& config, int64_t count, Rules rules, Device device) {
  return std::make_unique<AdamW>(config, count, rules, device);
}

}  // namespace tessera
