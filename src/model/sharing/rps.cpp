#include "model/sharing/rps.h"

#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "core/arena.h"
#include "core/error.h"
#include "kernels/compute.h"
#include "kernels/table.h"
#include "model/sharing/binding.h"
#include "model/sharing/cell_map.h"
#include "model/sharing/fold_view.h"
#include "model/sharing/selection.h"
#include "model/sharing_io.h"

namespace tessera {
namespace {

constexpr const char* kSlot = "rps.pool";

double norm_of(const ConstView& view) {
  double sum = 0;
  for (int64_t i = 0; i < view.shape.count(); ++i) sum += element(view, i) * element(view, i);
  return std::sqrt(sum);
}

class Rps final : public BaseSharing {
 public:
  Rps(const SharingConfig& config, KeyPlaces where) : config_(config), where_(std::move(where)) {}

  std::vector<Weight> bind(std::span<const WeightSpec> specs, ParameterPool& pool,
                           const BaseOptions& options) override {
    for (const int i : shared_specs(specs, config_, where_)) shared_.push_back(specs[i]);
    if (options.source && !options.saved) require_usable(specs, *options.source);
    require_trained_alike(shared_, options, config_, where_);
    make_plan(specs, pool.memory());
    if (options.saved) options.saved->require_same(descriptor());
    source_ = options.saved ? nullptr : options.source;
    is_trained_ = options.trainable;
    is_frozen_start_ = !options.trainable && !options.saved && plan_.cells() < plan_.weights;
    slot_ = bind_slot(kSlot, pool_options(options.trainable), pool, options,
                      [this](int64_t j) { return readers(kSlot, j); });
    return make_views(specs, pool, options);
  }

  Json descriptor() const override {
    Json tensors = Json::array();
    for (const FoldedTensor& t : plan_.tensors)
      tensors.push_back(Json::object().set("name", t.name).set("begin", t.begin).set("lambda", t.lambda));
    Json json = Json::object()
                    .set("method", "rps")
                    .set("version", 1)
                    .set("seed", config_.seed)
                    .set("weights", plan_.weights)
                    .set("cells", plan_.cells())
                    .set("mapper", config_.mapper)
                    .set("precond", config_.precond)
                    .set("layout", config_.layout);
    if (has_tiles()) json.set("tile_rows", config_.tile_rows).set("tile_cols", config_.tile_cols);
    return json.set("tensors", tensors).set("fnv1a", fmt::format("{:016x}", plan_.fingerprint()));
  }

  int64_t table_bytes() const override {
    int64_t bytes = map_ ? map_->bytes() : static_cast<int64_t>(plan_.runs.size() * sizeof(CellRun));
    if (has_step_pieces())
      bytes += (map_ ? plan_.cells() : static_cast<int64_t>(plan_.runs.size())) * int64_t{sizeof(StepPiece)};
    for (const auto& [lambda, list] : factors_) bytes += static_cast<int64_t>(list->size() * sizeof(FoldFactor));
    return bytes;
  }

  std::vector<std::string> notes() const override {
    std::vector<std::string> lines;
    lines.push_back(fmt::format("rps: {} weights of {} tensors in a pool of {} cells ({:.4g}x), {} chunks{}",
                                grouped(plan_.weights), plan_.tensors.size(), grouped(plan_.cells()),
                                plan_.compression(), plan_.chunks(), readers_note()));
    lines.push_back(fmt::format(
        "rps: {} weights of {} tensors are not shared: {} numbers in all, {:.4g}x fewer than weights",
        grouped(own_weights_), own_tensors_, grouped(plan_.cells() + own_weights_),
        static_cast<double>(plan_.weights + own_weights_) / static_cast<double>(plan_.cells() + own_weights_)));
    int64_t widest = 0;
    for (const FoldedTensor& t : plan_.tensors) widest = std::max(widest, t.layout.cols);
    if (plan_.cells() < widest)
      lines.push_back(
          fmt::format("warning: rps: a pool of {} cells is shorter than a row of {}: rows repeat themselves",
                      grouped(plan_.cells()), grouped(widest)));
    add_notes_of_start(lines);
    return lines;
  }

  std::string readers(const std::string& slot, int64_t index) const override {
    if (slot != kSlot) return BaseSharing::readers(slot, index);
    constexpr size_t kShown = 8;
    const auto places = readers_of(index);
    std::string text = fmt::format("cell {} of {}, read by {} weights", index, slot, places.size());
    for (size_t i = 0; i < std::min(kShown, places.size()); ++i) text += (i == 0 ? ": " : ", ") + places[i];
    return places.size() > kShown ? text + ", ..." : text;
  }

 private:
  bool has_tiles() const { return config_.layout == "tile" || config_.mapper == "roast-tile"; }
  bool is_isometric() const { return config_.precond == "D"; }
  /// Empty when the pool is only counted and has a map.
  const std::vector<CellRun>& cell_runs() const { return map_ ? map_->cells() : plan_.runs; }
  /// Steps are taken by what is trained.
  bool has_step_pieces() const { return is_trained_ && is_isometric() && config_.kappa == "unit"; }

  std::string readers_note() const {
    if (cell_runs().empty()) return "";
    int64_t fewest = plan_.weights, most = 0;
    for (const CellRun& run : cell_runs()) {
      fewest = std::min(fewest, run.readers);
      most = std::max(most, run.readers);
    }
    return "; readers of a cell: " + (fewest == most ? grouped(most) : grouped(fewest) + " to " + grouped(most));
  }

  void add_notes_of_start(std::vector<std::string>& lines) const {
    if (is_frozen_start_)
      lines.push_back(
          fmt::format("warning: rps: the frozen pool was not trained: it is {}; set sharing.load to a saved one",
                      source_ ? "the projection of given weights" : "drawn at random"));
    if (source_ && plan_.cells() == plan_.weights) lines.push_back("rps: the pool holds the given weights as they are");
    if (source_ && plan_.cells() < plan_.weights)
      lines.push_back(
          "warning: rps: a pool smaller than the given weights keeps little of them: the start may be worse than a random one");
    for (const auto& [type, errors] : projection_errors_)
      lines.push_back(fmt::format("rps: {}: relative error of the projection, by layer: {}", type, errors));
  }

  /// One address range needs one tensor: a head that is stored beside the embedding it is tied to must equal it.
  void require_usable(std::span<const WeightSpec> specs, const SafetensorsReader& source) const {
    for (const WeightSpec& spec : shared_) {
      if (const ConstView stored = source.at(spec.name); !is_weight_type(stored.dtype))
        throw UserError(where_.section(), fmt::format("rps: \"{}\" is stored as {}", spec.name, name_of(stored.dtype)),
                        "a quantised base cannot be shared: write it out in f32, bf16 or f16 first");
      for (const WeightSpec& other : specs) {
        if (other.storage != spec.storage || other.name == spec.name || !source.contains(other.name)) continue;
        const ConstView a = source_of(source, spec), b = source.at(other.name);
        if (a.dtype != b.dtype || !(a.shape == b.shape) ||
            std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())) != 0)
          throw UserError(source.file_of(other.name)->path().string(),
                          fmt::format("rps: \"{}\" and \"{}\" are tied by config.json, but their stored weights differ",
                                      spec.name, other.name),
                          "set \"tie_word_embeddings\" to false, or take another copy of the model");
      }
    }
  }

  void make_plan(std::span<const WeightSpec> specs, Memory memory) {
    int64_t weights = 0;
    for (const WeightSpec& spec : shared_) weights += spec.shape.count();
    const int64_t cells = cells_of(config_, weights, where_);
    const bool pow2 = config_.scale == "pow2" || (config_.scale == "auto" && cells == weights);
    std::vector<FoldedTensor> tensors;
    for (const WeightSpec& spec : shared_) {
      FoldLayout layout{.rows = spec.shape[0], .cols = spec.shape[1]};
      if (has_tiles()) {
        layout.tile_rows = config_.tile_rows;
        layout.tile_cols = config_.tile_cols;
      }
      tensors.push_back(
          {spec.storage, layout,
           fold_lambda(deviation_of(spec.init), config_.sigma_0, pow2 ? FoldScale::pow2 : FoldScale::exact)});
    }
    plan_ = plan_rps(std::move(tensors), cells, static_cast<uint64_t>(config_.seed));
    std::set<std::string> names;
    for (const WeightSpec& spec : shared_) names.insert(spec.storage);
    for (const WeightSpec& spec : specs)
      if (names.insert(spec.storage).second) {
        own_weights_ += spec.shape.count();
        ++own_tensors_;
      }
    if (config_.mapper != "randomfold") make_map(memory);
  }

  void make_map(Memory memory) {
    const bool hashed = config_.mapper == "hashed";
    if (!hashed && plan_.cells() <= config_.tile_rows * config_.tile_cols)
      throw UserError(where_.of({"tile_rows", "tile_cols", "mapper"}),
                      fmt::format("rps: a tile of {} x {} does not fit a pool of {} cells", config_.tile_rows,
                                  config_.tile_cols, plan_.cells()),
                      "lower sharing.tile_rows and sharing.tile_cols, or sharing.compression");
    map_ = std::make_shared<CellMap>(plan_, hashed ? CellMapper::hashed : CellMapper::roast_tile,
                                     static_cast<uint64_t>(config_.seed), is_isometric(), memory);
  }

  SlotOptions pool_options(bool trainable) {
    SlotOptions options{.shape = {plan_.cells()}, .trainable = trainable, .init = {}};
    options.init.formula = [this](TensorView values, uint64_t seed) { write_values(values, seed); };
    if (has_step_pieces()) options.adaptive_steps.reserve(cell_runs().size());
    if (has_step_pieces())
      for (const CellRun& run : cell_runs())
        options.adaptive_steps.push_back(
            {run.end, run.readers > 0 ? static_cast<float>(run.magnitude / std::sqrt(run.d)) : 1.0f});
    // At 1x every tensor is a part with its name: the gradient's norm is then summed as that of the ordinary model.
    if (plan_.cells() == plan_.weights)
      for (const FoldedTensor& t : plan_.tensors) options.parts.push_back({t.name, t.begin + t.layout.count()});
    return options;
  }

  std::vector<Weight> make_views(std::span<const WeightSpec> specs, ParameterPool& pool, const BaseOptions& options) {
    std::map<std::string, ViewPtr> by_storage;
    for (size_t k = 0; k < plan_.tensors.size(); ++k) {
      const FoldedTensor& t = plan_.tensors[k];
      if (map_)
        by_storage[t.name] = std::make_shared<MappedView>(pool, slot_, map_, k);
      else
        by_storage[t.name] =
            std::make_shared<FoldView>(pool, slot_, FoldedMatrix{plan_.hash, t.begin, t.layout}, factors_of(t.lambda));
    }
    return bind_others(specs, std::move(by_storage), pool, options);
  }

  /// One list for all tensors of a scale.
  std::shared_ptr<const std::vector<FoldFactor>> factors_of(double lambda) {
    auto& known = factors_[lambda];
    if (known) return known;
    std::vector<FoldFactor> list;
    for (const CellRun& run : plan_.runs) {
      const double factor = is_isometric() ? lambda / std::sqrt(run.d) : lambda;
      if (!list.empty() && list.back().factor == factor)
        list.back().end = run.end;
      else
        list.push_back({run.end, factor});
    }
    return known = std::make_shared<const std::vector<FoldFactor>>(std::move(list));
  }

  // --- First values ---

  void write_values(TensorView values, uint64_t seed) {
    // Given weights are projected; at 1x so are drawn ones, which keeps the ordinary model's first values to the bit.
    if (source_ || plan_.cells() == plan_.weights) return project_weights(values, seed);
    const RandomStream stream(seed, fnv1a(kSlot, std::strlen(kSlot)));
    int64_t j = 0;
    for (const CellRun& run : cell_runs()) {
      // A weight is λ/sqrt(D) · φ: with a deviation of sigma_0 · sqrt(D) for φ it has the deviation of its tensor.
      const double deviation = config_.sigma_0 * (is_isometric() && run.readers > 0 ? std::sqrt(run.d) : 1.0);
#pragma omp parallel for schedule(static) if (run.end - j > 1 << 14)
      for (int64_t cell = j; cell < run.end; ++cell)
        set_element(values, cell, deviation * stream.normal(static_cast<uint64_t>(cell), config_.rules));
      j = run.end;
    }
  }

  /// ψ = D⁻¹ Mᵀ w, the pool whose weights are nearest to the dense model's.
  void project_weights(TensorView values, uint64_t seed) {
    const Compute host({.backend = values.dtype == DType::f64 ? "reference" : ""}, 1 << 20);
    const Context& ctx = host;
    for (size_t k = 0; k < shared_.size(); ++k) {
      const Tensor weights = dense_values(shared_[k], source_, values.dtype, seed, config_.rules);
      if (map_)
        map_->contract(plan_.tensors[k], weights.view(), values);
      else
        fold_contract(ctx, matrix_of(k), weights.view(), values);
    }
    // The adjoint gave Mᵀ w, and in isometric coordinates D^(-1/2) Mᵀ w: there that is φ = sqrt(D) · ψ already.
    if (!is_isometric()) divide_by_d(values);
    if (plan_.cells() < plan_.weights) measure_projection(ctx, values, seed);
  }

  FoldedMatrix matrix_of(size_t k) {
    const FoldedTensor& t = plan_.tensors[k];
    return {plan_.hash, t.begin, t.layout, *factors_of(t.lambda)};
  }

  void divide_by_d(TensorView values) const {
    int64_t j = 0;
    for (const CellRun& run : cell_runs())
      for (; j < run.end; ++j)
        if (run.readers > 0) set_element(values, j, element(values, j) / run.d);
  }

  /// |W − w| / |w| of every tensor. Near sqrt(1 − 1/C) for weights that have nothing in common.
  void measure_projection(const Context& ctx, ConstView values, uint64_t seed) {
    for (size_t k = 0; k < shared_.size(); ++k) {
      const Tensor weights = dense_values(shared_[k], source_, values.dtype, seed, config_.rules);
      Tensor shared(shared_[k].shape, values.dtype);
      if (map_)
        map_->expand(ctx, plan_.tensors[k], {0, shared_[k].shape[0]}, values, shared);
      else
        fold_expand(ctx, matrix_of(k), values, 0, shared);
      double squares = 0;
      for (int64_t i = 0; i < weights.shape().count(); ++i) {
        const double difference = element(shared.view(), i) - element(weights.view(), i);
        squares += difference * difference;
      }
      const double error = std::sqrt(squares) / std::max(norm_of(weights.view()), 1e-300);  // of zeros: 0
      std::string& errors = projection_errors_[shared_[k].type.empty() ? shared_[k].name : shared_[k].type];
      errors += fmt::format("{}{:.3f}", errors.empty() ? "" : " ", error);
    }
  }

  /// "model.layers.0.self_attn.q_proj.weight[3, 5]" of every reader, in ascending order.
  std::vector<std::string> readers_of(int64_t cell) const {
    std::vector<std::string> places;
    const auto add = [&](const FoldedTensor& t, int64_t element) {
      places.push_back(fmt::format("{}[{}, {}]", t.name, element / t.layout.cols, element % t.layout.cols));
    };
    if (map_) {
      for (const FoldedTensor& t : plan_.tensors)
        for (int64_t e = 0; e < t.layout.count(); ++e)
          if (map_->cell(t, e / t.layout.cols, e % t.layout.cols) == cell) add(t, e);
      return places;
    }
    for (int64_t c = 0; c < plan_.chunks(); ++c) {
      const int64_t i = plan_.hash.reader(c, cell);
      if (i >= plan_.weights) continue;
      const FoldedTensor& t = plan_.tensor_of(i);
      add(t, t.layout.element(i - t.begin));
    }
    return places;
  }

  SharingConfig config_;
  KeyPlaces where_;
  const SafetensorsReader* source_ = nullptr;
  std::vector<WeightSpec> shared_;  // one a storage
  RpsPlan plan_;
  std::shared_ptr<CellMap> map_;  // of the other mappers
  SlotId slot_ = -1;
  bool is_frozen_start_ = false, is_trained_ = false;
  int64_t own_weights_ = 0, own_tensors_ = 0;
  std::map<double, std::shared_ptr<const std::vector<FoldFactor>>> factors_;
  std::map<std::string, std::string> projection_errors_;
};

}  // namespace

std::unique_ptr<BaseSharing> make_rps(const SharingConfig& config, const KeyPlaces& where) {
  return std::make_unique<Rps>(config, where);
}

}  // namespace tessera
