#pragma once
// What tests of Stable-RPS share: the address formulas once more, as docs/stable_rps.md has them, and settings.

#include "model/sharing/rps.h"
#include "support/tiny_model.h"

namespace tessera::test {

/// h and s as the page writes them, in 128-bit integers and without the closed forms of kernels/fold_address.h.
struct PageFold {
  uint64_t seed;
  int64_t cells;

  int64_t cell(int64_t i) const {
    const int64_t chunk = i / cells;
    unsigned __int128 u = 0;
    if (chunk > 0)
      u = (static_cast<unsigned __int128>(mix64(hash_key({seed, 0x525053}) + static_cast<uint64_t>(chunk) * kGamma64)) *
           static_cast<uint64_t>(cells)) >>
          64;
    return static_cast<int64_t>((u + static_cast<uint64_t>(i % cells)) % static_cast<uint64_t>(cells));
  }
  double sign(int64_t i) const {
    if (i < cells) return 1;
    return mix64(hash_key({seed, 0x53474E}) + static_cast<uint64_t>(i) * kGamma64) >> 63 ? -1 : 1;
  }
};

inline SharingConfig rps(double compression, std::vector<std::string> shared = {"linears", "embedding"}) {
  SharingConfig config;
  config.method = "rps";
  config.compression = compression;
  config.shared = std::move(shared);
  config.min_numel = 0;
  return config;
}

/// The weights of a spec as the model reads them, in the pool's dtype.
inline Tensor gathered(const Context& ctx, const ParameterPool& pool, const WeightView& view) {
  Tensor w(view.shape(), pool.dtype());
  view.gather(ctx, {&pool}, w);
  return w;
}

/// Weights, and the gradients they get, of a shared base over specs of the test's making.
struct BoundBase {
  BoundBase(const SharingConfig& config, std::vector<WeightSpec> list, uint64_t seed = 3,
            const BaseOptions& options = {.trainable = true}, DType compute = DType::f32)
      : specs(std::move(list)), pool(compute), sharing(make_sharing(config, "recipe.toml:3:1")) {
    for (const Weight& weight : sharing->bind(specs, pool, options)) views.push_back(weight.base);
    pool.allocate(seed);
  }
  std::vector<WeightSpec> specs;
  ParameterPool pool;
  std::unique_ptr<BaseSharing> sharing;
  std::vector<ViewPtr> views;
};

inline WeightSpec matrix_spec(const std::string& name, Shape shape, Init init, Role role = Role::linear) {
  return {
      .name = name, .type = name, .layer = 0, .role = role, .shape = shape, .init = std::move(init), .storage = name};
}
inline Init normal(double deviation) { return {Init::Kind::normal, deviation, {}}; }
inline Init uniform(double bound) { return {Init::Kind::uniform, bound, {}}; }

}  // namespace tessera::test
