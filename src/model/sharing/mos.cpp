#include "model/sharing/mos.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "core/error.h"
#include "core/functions/functions.h"
#include "core/random.h"
#include "kernels/shards.h"

namespace tessera {
namespace {

std::string leaf_of(const std::string& type) { return type.substr(type.rfind('.') + 1); }

std::string divisors_text(int64_t value) {
  std::string text;
  for (int64_t d = 1; d <= 32; ++d)
    if (value % d == 0) text += fmt::format("{}{}", text.empty() ? "" : ",", d);
  return text;
}

void check_divides(int64_t shards, int64_t width, const char* side, const std::string& type, const KeyPlaces& where) {
  if (width % shards == 0) return;
  throw UserError(where.of("shards"), fmt::format("mos: shards={} does not divide {}={} of {} (divisors up to 32: {})",
                                                  shards, side, width, leaf_of(type), divisors_text(width)));
}

/// One pool pair serves all layers of one path-qualified type and shape.
struct TypeKey {
  std::string type;
  int64_t in, out;
  bool operator<(const TypeKey& o) const { return std::tie(type, in, out) < std::tie(o.type, o.in, o.out); }
};

class Mos final : public Adapter {
 public:
  Mos(const AdapterConfig& config, KeyPlaces where) : config_(config), where_(std::move(where)) {}

  AdapterWeights attach(std::span<const WeightSpec> specs, ParameterPool& pool, const ReserveSlot& reserve) override {
    std::map<TypeKey, std::vector<int>> groups;  // sorted: type numbers, hence adapters, are portable
    for (const int i : match_targets(specs, config_.targets, where_, "mos"))
      groups[{specs[i].type, specs[i].shape[1], specs[i].shape[0]}].push_back(i);
    std::set<std::string> names;
    for (const auto& [key, members] : groups) names.insert(key.type);
    types_.assign(names.begin(), names.end());

    AdapterWeights weights;
    weights.by_weight.resize(specs.size());
    for (const auto& [key, members] : groups) attach_type(key, members, specs, pool, reserve, weights);
    return weights;
  }

  Json descriptor() const override {
    Json types = Json::array(), tables = Json::array(), layers = Json::array();
    for (const std::string& type : types_) types.push_back(type);
    for (const auto& [name, hash] : table_hashes_)
      tables.push_back(Json::object().set("table", name).set("fnv1a", fmt::format("{:016x}", hash)));
    for (const auto& [type, list] : ordinals_) {
      Json ordinals = Json::array();
      for (const int layer : list) ordinals.push_back(layer);
      layers.push_back(Json::object().set("type", type).set("layers", ordinals));
    }
    return Json::object()
        .set("method", "mos")
        .set("version", 1)
        .set("index_seed", config_.index_seed)
        .set("equivalent_rank", config_.equivalent_rank)
        .set("rank", rank_)
        .set("private_rank", private_rank_)
        .set("shards", config_.shards)
        .set("alpha", config_.alpha)
        .set("scale", config_.scale)
        .set("draw", config_.draw)
        .set("dropout", config_.dropout)
        .set("types", types)
        .set("layers", layers)
        .set("tables", tables);
  }

  std::vector<std::string> notes() const override { return notes_; }

  std::string readers(const std::string& slot, int64_t index) const override {
    const auto found = pools_.find(slot);
    if (found == pools_.end()) return Adapter::readers(slot, index);
    const auto& [width, views] = found->second;
    const int64_t row = index / width;
    std::string layers;
    for (const auto& [layer, view] : views)
      if (std::find(view->table().begin(), view->table().end(), row) != view->table().end())
        layers += (layers.empty() ? "" : ", ") + std::to_string(layer);
    return fmt::format("pool {} row {}, read by layers {}", slot, row, layers.empty() ? "none" : layers);
  }

 private:
  void attach_type(const TypeKey& key, const std::vector<int>& members, std::span<const WeightSpec> specs,
                   ParameterPool& pool, const ReserveSlot& reserve, AdapterWeights& weights) {
    const auto layers = static_cast<int64_t>(members.size());
    const MosShape shape = mos_shape(config_, layers, where_);
    check_divides(shape.shards, key.in, "d_in", key.type, where_);
    check_divides(shape.shards, key.out, "d_out", key.type, where_);
    rank_ = shape.rank;
    private_rank_ = shape.private_rank;
    note(key.type, shape);

    const std::string base =
        !shape_conflict(key, specs) ? "mos." + key.type : fmt::format("mos.{}.{}x{}", key.type, key.in, key.out);
    const int64_t in = key.in / shape.shards, out = key.out / shape.shards;
    const SlotId a = reserve(
        base + ".pool_a",
        {.shape = {shape.rows(), in}, .init = {Init::Kind::uniform, 1.0 / std::sqrt(static_cast<double>(key.in)), {}}});
    // B = 0: the delta begins at zero, as LoRA's does, however its shards are drawn.
    const SlotId b = reserve(base + ".pool_b", {.shape = {shape.rows(), out}, .init = {}});
    const auto type_id = static_cast<uint64_t>(std::find(types_.begin(), types_.end(), key.type) - types_.begin());
    const MosDraw draw = config_.draw == "tied"   ? MosDraw::tied
                         : config_.draw == "pure" ? MosDraw::pure
                                                  : MosDraw::random;
    for (int64_t k = 0; k < layers; ++k) {
      const auto side = [&](int s, SlotId slot, int64_t width) {
        auto view = std::make_shared<ShardView>(
            slot, shape.rank, shape.shards, width,
            mos_table(shape, draw, static_cast<uint64_t>(config_.index_seed), type_id, s, k), pool.device(),
            pool.is_trainable(slot));
        table_hashes_.emplace_back(fmt::format("{}.{}.{}", base.substr(4), k, s == 0 ? "a" : "b"), view->fingerprint());
        auto& entry = pools_[base + (s == 0 ? ".pool_a" : ".pool_b")];
        entry.first = width;
        entry.second.emplace_back(specs[members[k]].layer, view);
        return view;
      };
      weights.by_weight[members[k]].push_back({.a = side(0, a, in),
                                               .bt = side(1, b, out),
                                               .scale = adapter_scale(config_, shape.rank),
                                               .dropout = static_cast<float>(config_.dropout)});
      ordinals_[key.type].push_back(specs[members[k]].layer);
    }
  }

  static bool shape_conflict(const TypeKey& key, std::span<const WeightSpec> specs) {
    return std::any_of(specs.begin(), specs.end(), [&](const WeightSpec& s) {
      return s.type == key.type && (s.shape[1] != key.in || s.shape[0] != key.out);
    });
  }

  void note(const std::string& type, const MosShape& shape) {
    const std::string text =
        fmt::format("mos: e={} r={} p={} l={}: {:.2f} % of the public shards are read by no layer",
                    shape.equivalent_rank, shape.rank, shape.private_rank, shape.shards, 100 * mos_dead_share(shape));
    if (std::find(notes_.begin(), notes_.end(), text) == notes_.end()) notes_.push_back(text);
    if (shape.layers == 1)
      notes_.push_back(fmt::format("warning: mos: {} occurs in one layer only: nothing is shared across layers", type));
  }

  AdapterConfig config_;
  KeyPlaces where_;
  std::vector<std::string> types_, notes_;
  int64_t rank_ = 0, private_rank_ = 0;
  std::vector<std::pair<std::string, uint64_t>> table_hashes_;
  std::map<std::string, std::vector<int>> ordinals_;
  std::map<std::string, std::pair<int64_t, std::vector<std::pair<int, std::shared_ptr<ShardView>>>>> pools_;
};

int64_t private_rank_of(const AdapterConfig& config, int64_t equivalent_rank) {
  return config.private_rank.value_or(equivalent_rank < 4 ? 1 : equivalent_rank / 4);
}

/// Whose pool has as many public vectors as config.rank needs.
int64_t least_equivalent_rank(const AdapterConfig& config, int64_t layers) {
  int64_t e = config.equivalent_rank;
  while (*config.rank - private_rank_of(config, e) > (e - private_rank_of(config, e)) * layers) ++e;
  return e;
}

}  // namespace

MosShape mos_shape(const AdapterConfig& config, int64_t layers, const KeyPlaces& where) {
  MosShape s;
  s.layers = layers;
  s.equivalent_rank = config.equivalent_rank;
  s.shards = config.shards;
  const int64_t e = s.equivalent_rank;
  if (config.draw == "pure") {  // p = 0, l = 1, r = e·L: every layer reads row j as vector j
    s.private_rank = 0;
    s.rank = e * layers;
    if (config.shards != 1 || config.private_rank.value_or(0) != 0 || config.rank.value_or(s.rank) != s.rank)
      throw UserError(where.of("draw"),
                      fmt::format("mos: draw=\"pure\" means shards=1, private_rank=0 and rank=e·L={}", s.rank),
                      "set shards = 1 and leave rank and private_rank out");
    return s;
  }
  s.private_rank = private_rank_of(config, e);
  const int64_t p = s.private_rank;
  if (p > e)
    throw UserError(where.of({"private_rank", "equivalent_rank"}),
                    fmt::format("mos: private={} exceeds equivalent rank e={}", p, e),
                    fmt::format("set adapter.private_rank to 0..{}", e));
  s.rank = config.rank.value_or(p == e ? e : std::min(4 * e, (e - p) * layers + p));
  const int64_t r = s.rank;
  if (r < p)
    throw UserError(where.of({"rank", "private_rank"}), fmt::format("mos: r={} is below private={}", r, p),
                    fmt::format("set adapter.rank to at least {}", p));
  if (p == e && r != e)
    throw UserError(where.of({"private_rank", "rank", "equivalent_rank"}),
                    "mos: with private=e nothing is shared, so r must equal e (plain LoRA)",
                    fmt::format("set adapter.rank = {}, or adapter.private_rank below {}", e, e));
  if (r - p > (e - p) * layers)
    throw UserError(
        where.of({"rank", "equivalent_rank", "private_rank"}),
        fmt::format(
            "mos: adapter.rank={} needs {} public vectors a layer, and the pool has {}: those of {} layers with "
            "adapter.equivalent_rank={} and private_rank={}",
            r, r - p, (e - p) * layers, layers, e, p),
        fmt::format("set adapter.rank to {} at most, or adapter.equivalent_rank to {} at least", (e - p) * layers + p,
                    least_equivalent_rank(config, layers)));
  return s;
}

std::vector<int32_t> mos_table(const MosShape& s, MosDraw draw, uint64_t seed, uint64_t type_id, int side,
                               int64_t layer) {
  if (draw == MosDraw::pure) {
    std::vector<int32_t> all(static_cast<size_t>(s.rank * s.shards));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  // A and B are drawn apart: a row of P_A and a row of P_B that meet in one vector hardly ever meet again.
  const auto table_side = static_cast<uint64_t>(draw == MosDraw::tied ? 0 : side);
  std::vector<int32_t> table = draw_distinct(hash_key({seed, type_id, table_side, static_cast<uint64_t>(layer)}),
                                             s.public_rows(), (s.rank - s.private_rank) * s.shards);
  const int64_t own = s.public_rows() + layer * s.private_rank * s.shards;
  for (int64_t i = 0; i < s.private_rank * s.shards; ++i) table.push_back(static_cast<int32_t>(own + i));
  return table;
}

double mos_dead_share(const MosShape& s) {
  const auto public_vectors = static_cast<double>((s.equivalent_rank - s.private_rank) * s.layers);
  if (public_vectors == 0) return 0;
  return functions::pow(std::max(0.0, 1 - static_cast<double>(s.rank - s.private_rank) / public_vectors),
                        static_cast<double>(s.layers));
}

ShardView::ShardView(SlotId pool, int64_t vectors, int64_t shards, int64_t width, std::vector<int32_t> table,
                     Device device, bool trainable)
    : pool_(pool), shape_({vectors, shards * width}), table_(std::move(table), device), trainable_(trainable) {
  TS_CHECK(static_cast<int64_t>(this->table().size()) == vectors * shards, "table of {} entries for {} x {} shards",
           this->table().size(), vectors, shards);
}

void ShardView::gather(const Context& ctx, const PoolRead& read, RowRange rows, TensorView w) const {
  TS_CHECK(!read.z, "shards are read from a perturbed copy of their pool, not perturbed one by one");
  const auto shards = static_cast<int64_t>(table().size()) / shape_[0];
  const IndexArray<int32_t> index = table_;
  gather_shards(ctx, read.values(pool_), index.subspan(rows.begin * shards, (rows.end - rows.begin) * shards), w);
}

void ShardView::scatter_add(const Context& ctx, ConstView dw, ParameterPool& pool) const {
  scatter_shards_add(ctx, table_, dw, pool.grads(pool_));
}

uint64_t ShardView::fingerprint() const { return fnv1a(table().data(), table().size() * sizeof(int32_t)); }

std::unique_ptr<Adapter> make_mos(const AdapterConfig& config, const KeyPlaces& where) {
  return std::make_unique<Mos>(config, where);
}

}  // namespace tessera
