#include "model/sharing/plain.h"

#include "core/error.h"
#include "model/sharing/binding.h"
#include "model/sharing_io.h"

namespace tessera {
namespace {

class Plain final : public BaseSharing {
 public:
  std::vector<Weight> bind(std::span<const WeightSpec> specs, ParameterPool& pool,
                           const BaseOptions& options) override {
    if (options.saved) options.saved->require_same(descriptor());
    return bind_others(specs, {}, pool, options);
  }

  Json descriptor() const override { return Json::object().set("method", "none"); }
};

}  // namespace

std::unique_ptr<BaseSharing> make_plain(const SharingConfig&, const KeyPlaces&) { return std::make_unique<Plain>(); }

}  // namespace tessera
