// [sharing] and [adapter]: their keys, and what is wrong with one of them for itself, before there is a model.

#include "core/error.h"
#include "core/section_check.h"
#include "model/sharing/adapter.h"
#include "model/sharing/base.h"
#include "model/sharing/regex_of.h"

namespace tessera {
namespace {

/// "a", "b" or "c": the methods that hold something.
template <class Method> std::string choice_of(const std::vector<Method>& methods) {
  std::vector<std::string> names;
  for (const Method& method : methods)
    if (method.name != "none") names.push_back(fmt::format("\"{}\"", method.name));
  std::string text = names.front();
  for (size_t i = 1; i < names.size(); ++i) text += (i + 1 < names.size() ? ", " : " or ") + names[i];
  return text;
}

/// Options are given and the method is not even named: what was wanted would not happen, without a word. method =
/// "none" says that it is meant.
void require_method(SectionCheck& own, const std::string& section, const std::string& otherwise,
                    const std::string& methods) {
  std::set<std::string> said = own.said();
  said.erase("load");  // which has a word of its own
  if (own.has("method") || said.empty()) return;
  own.fault(*said.begin(),
            fmt::format("{0}.{1} is given, but {0}.method is not: {2}", section, *said.begin(), otherwise),
            fmt::format("set {}.method to {}, or to \"none\" if this is meant", section, methods));
}

/// Fields of which the trained numbers are read, unless a field says otherwise.
struct OfModel {
  Fields& fields;
  template <class T>
  void operator()(const char* key, T& member, const Rule& rule, const char* help,
                  OnResume on_resume = OnResume::same_model) const {
    fields(key, member, rule, help, on_resume);
  }
};

}  // namespace

void SharingConfig::visit(Fields& fields) {
  const OfModel v{fields};
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

void SharingConfig::check(SectionCheck& own) const {
  require_method(own, "sharing", "every weight would be a number of its own", choice_of(sharing_methods()));
  if (method == "none" && !load.empty())
    own.fault("load", "sharing.load is given, but sharing.method is \"none\"",
              "set sharing.method and its options to the saved ones: its sharing.json names them");
  if (method != "none" && shared.empty())
    own.fault("shared", "sharing.shared names no weights", "write [\"linears\"], or leave it out");
  check_patterns(own, "shared", shared);
}

void AdapterConfig::visit(Fields& fields) {
  const OfModel v{fields};
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
  v("dropout", dropout, in_f32(in_range(0, 0.95)), "share of the adapter's inputs dropped in training", OnResume::same);
  v("targets", targets, anything(),
    "adapted weights: \"all\" linears of the blocks, or names such as \"q_proj\", \"self_attn.q_proj\"");
  v("draw", draw, one_of({"random", "tied", "pure"}),
    "mos: index tables. random: drawn apart for A and B; tied: one table for both (ablation); pure: every layer reads every row (ablation)");
  v("scale", scale, one_of({"standard", "rs"}), "standard: alpha / rank; rs: alpha / sqrt(rank)");
  v("index_seed", index_seed, at_least(0), "mos: seed of the index tables; part of the adapter's identity");
  v("load", load, anything(), "folder of a saved native adapter to start from", OnResume::same_weights);
}

void AdapterConfig::check(SectionCheck& own) const {
  require_method(own, "adapter", "all weights would be trained", choice_of(adapter_methods()));
  if (targets.empty()) own.fault("targets", "adapter.targets names no weights", "write [\"all\"], or leave it out");
  if (method == "none" && !load.empty())
    own.fault("load", "adapter.load is given, but adapter.method is \"none\"",
              "set adapter.method and its options to the saved adapter's: its adapter.json names them");
}

}  // namespace tessera
