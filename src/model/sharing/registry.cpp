#include <cmath>
#include <set>

#include "core/error.h"
#include "model/sharing/adapter.h"
#include "model/sharing/base.h"
#include "model/sharing/depth.h"
#include "model/sharing/lora.h"
#include "model/sharing/magnitude.h"
#include "model/sharing/mos.h"
#include "model/sharing/rps.h"

namespace tessera {

const std::vector<AdapterMethod>& adapter_methods() {
  static const std::vector<AdapterMethod> methods = {
      {"lora", "low-rank adapters: own A and B for every weight", {}, make_lora},
      {"mos",
       "mixture of shards: A and B assembled from pools shared by all layers",
       {"equivalent_rank", "shards", "private_rank", "draw", "index_seed"},
       make_mos},
  };
  return methods;
}

std::unique_ptr<Adapter> make_adapter(const AdapterConfig& config, const KeyPlaces& where) {
  if (config.method == "none") return nullptr;
  for (const AdapterMethod& method : adapter_methods())
    if (method.name == config.method) return method.make(config, where);
  TS_CHECK(false, "adapter method \"{}\" passed the recipe's check", config.method);
  return nullptr;
}

const std::vector<SharingMethod>& sharing_methods() {
  static const std::vector<SharingMethod> methods = {
      {"none", "every weight is a number of its own", {}, make_plain},
      {"rps",
       "Stable-RPS: all weights are read from one small pool, folded onto it at random",
       {"pool", "shared", "min_numel", "seed", "mapper", "layout", "tile_rows", "tile_cols", "precond", "kappa",
        "scale", "sigma_0"},
       make_rps},
      {"depth", "for comparison: neighbouring layers read one block's matrices", {"blocks"}, make_depth},
      {"magnitude",
       "for comparison: only the weights that are largest at the start are kept",
       {"pool", "shared", "min_numel"},
       make_magnitude},
  };
  return methods;
}

std::unique_ptr<BaseSharing> make_sharing(const SharingConfig& config, const KeyPlaces& where) {
  for (const SharingMethod& method : sharing_methods())
    if (method.name == config.method) return method.make(config, where);
  TS_CHECK(false, "sharing method \"{}\" passed the recipe's check", config.method);
  return nullptr;
}

void SharingConfig::visit(Fields& v) {
  std::vector<std::string> methods;
  for (const SharingMethod& m : sharing_methods()) methods.emplace_back(m.name);
  v("method", method, one_of(methods), "how the model's own weights are held; none: each for itself");
  v("compression", compression, above(0),
    "rps, magnitude: shared weights for each that is held; depth: layers for each block; 1: the ordinary model");
  v("pool", pool, at_least(1), "rps, magnitude: numbers that are held, in place of compression");
  v("blocks", blocks, at_least(1),
    "depth: different blocks, in place of compression; layer l reads block l · blocks / layers");
  v("shared", shared, anything(),
    "rps, magnitude: what is shared: \"linears\" of the blocks, \"embedding\", \"head\", or regular expressions found in tensors' names");
  v("min_numel", min_numel, at_least(0), "smaller tensors are not shared");
  v("seed", seed, at_least(0), "of the rotations and signs; part of the pool's identity");
  v("mapper", mapper, one_of({"randomfold", "hashed", "roast-tile"}),
    "rps: randomfold; hashed (a cell a weight, HashedNet) and roast-tile (a place a tile) are for comparison");
  v("layout", layout, one_of({"row", "tile"}), "rps: in which order a matrix is numbered: by rows, or tile by tile");
  v("tile_rows", tile_rows, in_range(1, 65536), "rps: rows of a tile");
  v("tile_cols", tile_cols, in_range(1, 65536), "rps: columns of a tile");
  v("precond", precond, one_of({"D", "none"}),
    "rps: D trains in isometric coordinates, as stable as the dense model; none: in the cells themselves, for comparison");
  v("kappa", kappa, one_of({"unit", "iso"}),
    "rps with adamw: unit: each weight moves about the learning rate a step; iso: all weights of a cell together");
  v("scale", scale, one_of({"auto", "exact", "pow2"}),
    "rps: a tensor's scale is the ratio of deviations (exact), its nearest power of two (pow2); auto: pow2 at 1x, exact above");
  v("sigma_0", sigma_0, in_range(1e-12, 1e12),
    "rps: deviation of the cells; with precond = \"D\" nothing depends on it");
  v("load", load, anything(), "folder of a saved pool to start from, or to build on", OnResume::same_weights);
}

void AdapterConfig::visit(Fields& v) {
  std::vector<std::string> methods = {"none"};
  for (const AdapterMethod& m : adapter_methods()) methods.emplace_back(m.name);
  v("method", method, one_of(methods), "how the deltas are parameterised; none: train all weights");
  v("equivalent_rank", equivalent_rank, in_range(1, 1024),
    "mos: the budget, as the rank of a plain LoRA with as many parameters (e)");
  v("rank", rank, in_range(1, 4096), "rank of each delta (r); mos: 4 e when not set, lora: 8");
  v("shards", shards, in_range(1, 1024), "mos: pieces each vector is cut into (l)");
  v("private_rank", private_rank, in_range(0, 1024),
    "mos: ranks of each layer that no other layer reads (p); when not set 1 for e < 4, else e/4");
  v("alpha", alpha, in_f32(above(0)), "scale numerator: deltas are multiplied by alpha / rank");
  v("dropout", dropout, in_f32(in_range(0, 0.95)), "share of the adapter's inputs dropped in training");
  v("targets", targets, anything(),
    "adapted weights: \"all\" linears of the blocks, or names such as \"q_proj\", \"self_attn.q_proj\"");
  v("draw", draw, one_of({"random", "tied", "pure"}),
    "mos: index tables. random: drawn apart for A and B; tied: one table for both (ablation); pure: every layer reads every row (ablation)");
  v("scale", scale, one_of({"standard", "rs"}), "standard: alpha / rank; rs: alpha / sqrt(rank)");
  v("index_seed", index_seed, at_least(0), "mos: seed of the index tables; part of the adapter's identity");
  v("load", load, anything(), "folder of a saved native adapter to start from", OnResume::same_weights);
}

std::vector<int> match_targets(std::span<const WeightSpec> specs, const std::vector<std::string>& targets,
                               const KeyPlaces& where, const std::string& method) {
  std::set<std::string> types;
  for (const WeightSpec& spec : specs)
    if (spec.role == Role::linear) types.insert(spec.type);
  std::set<std::string> chosen;
  for (const std::string& target : targets) {
    bool found = false;
    for (const std::string& type : types) {
      const bool leaf = type.size() > target.size() &&
                        type.compare(type.size() - target.size(), target.size(), target) == 0 &&
                        type[type.size() - target.size() - 1] == '.';
      if (target == "all" || target == type || leaf) {
        chosen.insert(type);
        found = true;
      }
    }
    if (!found) {
      std::string known;
      for (const std::string& type : types) known += (known.empty() ? "" : ", ") + type;
      throw UserError(where.of("targets"), fmt::format("{}: target '{}' matches none of: {}", method, target, known));
    }
  }
  std::vector<int> numbers;
  for (size_t i = 0; i < specs.size(); ++i)
    if (specs[i].role == Role::linear && chosen.count(specs[i].type)) numbers.push_back(static_cast<int>(i));
  return numbers;
}

float adapter_scale(const AdapterConfig& config, int64_t rank) {
  const auto r = static_cast<double>(rank);
  return static_cast<float>(config.alpha / (config.scale == "rs" ? std::sqrt(r) : r));
}

}  // namespace tessera
