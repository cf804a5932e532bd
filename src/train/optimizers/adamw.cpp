// Two vectors of state, as long as the flat values: m, a mean of gradients, and v, a mean of their squares.

#include "kernels/optimizer_steps.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(const OptimizerConfig& config, int64_t count, Rules rules, Device device)
      : Optimizer(config), rules_(rules), m_({count}, DType::f32, device), v_({count}, DType::f32, device) {}

  void step_run(const Context& ctx, const SlotRun& run, const RunStep& step) override {
    const TensorView m = run.of(m_), v = run.of(v_);
    // Pieces of a slot may have steps of their own size, such as shared weights: each piece is one call of the kernel.
    for_each_adaptive_step(run.slot, run.begin, run.end(), [&](int64_t from, int64_t to, float scale) {
      const int64_t begin = from - run.begin, end = to - run.begin;
      adamw_step(ctx, {.values = run.values.slice_rows(begin, end),
                       .grads = run.grads.slice_rows(begin, end),
                       .m = m.slice_rows(begin, end),
                       .v = v.slice_rows(begin, end),
                       .lr = step.lr,
                       .beta1 = static_cast<float>(config_.beta1),
                       .beta2 = static_cast<float>(config_.beta2),
                       .rest1 = rest_of(config_.beta1, rules_),
                       .rest2 = rest_of(config_.beta2, rules_),
                       .eps = static_cast<float>(config_.eps),
                       // Norms and biases do not decay.
                       .weight_decay = run.slot.weight_decay ? static_cast<float>(config_.weight_decay) : 0.0f,
                       .step_scale = scale,
                       .grad_scale = step.grad_scale,
                       .correction1 = step.corrections.first,
                       .correction2 = step.corrections.second});
    });
  }

  void visit_state(const std::function<void(const std::string&, TensorView)>& visit) override {
    visit("m", m_);
    visit("v", v_);
  }

 private:
  Rules rules_;
  Tensor m_, v_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(const OptimizerConfig& config, int64_t count, Rules rules, Device device) {
  return std::make_unique<AdamW>(config, count, rules, device);
}

}  // namespace tessera
