#include <cstring>

#include "core/error.h"
#include "train/spsa/simulate/sim_losses.h"

namespace tessera {
namespace {

class ModelLosses final : public SimLosses {
 public:
  ModelLosses(const Voter::Inputs& in, Model& model) : in_(in), model_(model) {}

  Measured measure(ConstView looked_at, uint32_t round, int unit, uint32_t machine, uint32_t lane) override {
    const TensorView values = model_.pool().trainable().values;
    TS_CHECK(looked_at.bytes() == values.bytes(), "{} bytes of weights, the model trains {}", looked_at.bytes(),
             values.bytes());
    std::memcpy(values.mutable_data(), looked_at.data, static_cast<size_t>(values.bytes()));
    model_.assemble(in_.ctx);
    return Voter(in_, machine, lane).measure(round, unit);
  }

 private:
  Voter::Inputs in_;
  Model& model_;
};

}  // namespace

std::unique_ptr<SimLosses> make_model_losses(const Voter::Inputs& in, Model& model) {
  return std::make_unique<ModelLosses>(in, model);
}

}  // namespace tessera
