#include "model/sharing/magnitude.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <map>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/random.h"
#include "kernels/host_work.h"
#include "model/sharing/binding.h"
#include "model/sharing/selection.h"
#include "model/sharing_io.h"

namespace tessera {
namespace {

constexpr const char* kSlot = "magnitude.pool";

/// Visits the magnitudes of all shared weights, in their order; the same ones each time.
using Magnitudes = std::function<void(const std::function<void(double)>&)>;

/// The `kept`-th largest, and how many equal ones are kept. Found 16 bits at a time from the top, since the patterns of
/// numbers that are not negative ascend with them: a list of all would be larger than the pool.
struct Least {
  uint64_t pattern = 0;
  int64_t equals;

  Least(const Magnitudes& magnitudes, int64_t kept) : equals(kept) {
    for (int shift = 48; shift >= 0; shift -= 16) {
      std::vector<int64_t> counts(1 << 16);
      magnitudes([&](double x) {
        const auto bits = std::bit_cast<uint64_t>(x);
        if (shift == 48 || bits >> (shift + 16) == pattern >> (shift + 16)) ++counts[bits >> shift & 0xffff];
      });
      auto digit = static_cast<uint64_t>(counts.size() - 1);
      for (; counts[digit] < equals; --digit) equals -= counts[digit];
      pattern |= digit << shift;
      if (counts[digit] == equals) return;  // all numbers with these digits are kept, whatever follows
    }
  }
};

/// A bit for each of N weights, and for every 64 the number of those kept before them.
class KeptWeights {
 public:
  /// Keeps the `kept` largest of `count`, the first of equals.
  KeptWeights(const Magnitudes& magnitudes, int64_t count, int64_t kept) {
    const Least least(magnitudes, kept);
    int64_t i = 0, equals = least.equals;
    bits_.assign(static_cast<size_t>((count + 63) / 64), 0);
    bits_.reserve(bits_.size() + 1);
    magnitudes([&](double x) {
      const auto bits = std::bit_cast<uint64_t>(x);
      if (bits > least.pattern || (bits == least.pattern && equals-- > 0))
        bits_[static_cast<size_t>(i / 64)] |= uint64_t{1} << (i % 64);
      ++i;
    });
    before_.reserve(bits_.size() + 1);
    int64_t before = 0;
    for (const uint64_t word : bits_) {
      before_.push_back(before);
      before += std::popcount(word);
    }
    before_.push_back(before);  // so that the weight behind the last has a number, too
    bits_.push_back(0);
  }

  /// How many are kept before weight i: its cell, when it is kept itself.
  int64_t cell(int64_t i) const {
    const auto word = static_cast<size_t>(i / 64);
    return before_[word] + std::popcount(bits_[word] & ((uint64_t{1} << (i % 64)) - 1));
  }
  /// f(i, cell) for the kept ones of the weights [begin, end).
  template <class F> void for_kept(int64_t begin, int64_t end, F&& f) const {
    int64_t cell = this->cell(begin);
    for (int64_t word = begin / 64; word * 64 < end; ++word) {
      uint64_t bits = bits_[static_cast<size_t>(word)];
      if (word * 64 < begin) bits &= ~uint64_t{0} << (begin % 64);
      if (end - word * 64 < 64) bits &= (uint64_t{1} << (end % 64)) - 1;
      for (; bits != 0; bits &= bits - 1) f(word * 64 + std::countr_zero(bits), cell++);
    }
  }
  uint64_t fingerprint() const { return fnv1a(bits_.data(), bits_.size() * sizeof(uint64_t)); }
  /// Of the mask of so many weights.
  static int64_t bytes(int64_t count) { return (count + 63) / 64 * int64_t{sizeof(uint64_t) + sizeof(int64_t)}; }

 private:
  std::vector<uint64_t> bits_;
  std::vector<int64_t> before_;
};

/// A tensor's place among the shared weights.
struct PrunedTensor {
  WeightSpec spec;
  int64_t begin;
  int64_t end() const { return begin + spec.shape.count(); }
};

/// A matrix of kept weights and zeros. One that is kept whole is read in place.
class PrunedView final : public WeightView {
 public:
  /// @param kept  null in a plan: the matrix is planned as one that is not whole
  PrunedView(const ParameterPool& pool, SlotId cells, std::shared_ptr<const KeptWeights> kept,
             const PrunedTensor& tensor)
      : cells_(cells),
        kept_(std::move(kept)),
        shape_(tensor.spec.shape),
        begin_(tensor.begin),
        first_(kept_ ? kept_->cell(tensor.begin) : 0),
        trainable_(pool.is_trainable(cells)),
        whole_(kept_ && kept_->cell(tensor.end()) - first_ == shape_.count()) {}
  Shape shape() const override { return shape_; }
  bool is_trainable() const override { return trainable_; }
  using WeightView::gather;

  void gather(const Context& ctx, const PoolRead& read, RowRange rows, TensorView w) const override {
    TS_CHECK(!read.z || !trainable_, "pruned weights are read from a perturbed copy of the kept ones");
    host_work(ctx, [&] {
      const ConstView pool = read.values(cells_);
      if (pool.dtype == DType::f64) return gather_typed<double>(ctx, pool, rows, w);
      gather_typed<float>(ctx, pool, rows, w);
    });
  }

  void scatter_add(const Context& ctx, ConstView dw, ParameterPool& pool) const override {
    host_work(ctx, [&] {
      const TensorView grads = pool.grads(cells_);
      if (grads.dtype == DType::f64) return scatter_typed<double>(ctx, dw, grads);
      scatter_typed<float>(ctx, dw, grads);
    });
  }

  ConstView direct(const PoolRead& read) const override {
    if (!whole_ || (read.z && trainable_)) return {};
    return read.values(cells_).slice_rows(first_, first_ + shape_.count()).reshape(shape_);
  }
  std::optional<TensorView> direct_grad(ParameterPool& pool) const override {
    if (!whole_) return std::nullopt;
    return pool.grads(cells_).slice_rows(first_, first_ + shape_.count()).reshape(shape_);
  }
  uint64_t fingerprint() const override {
    return hash_key({kept_->fingerprint(), static_cast<uint64_t>(cells_), static_cast<uint64_t>(begin_),
                     static_cast<uint64_t>(shape_[0]), static_cast<uint64_t>(shape_[1])});
  }

 private:
  template <class T>
  void gather_typed(const Context& ctx, const ConstView& pool, RowRange rows, const TensorView& w) const {
    const OnHost read(pool);
    const WrittenOnHost written(w);
    const T* from = read.as<T>().data();
    T* to = written.as<T>().data();
    const int64_t cols = shape_[1], threads = rows.end - rows.begin > 1 ? ctx.threads : 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const int64_t i = begin_ + row * cols;
      T* out = to + (row - rows.begin) * cols;
      std::fill(out, out + cols, T{0});
      kept_->for_kept(i, i + cols, [&](int64_t weight, int64_t cell) { out[weight - i] = from[cell]; });
    }
  }

  template <class T> void scatter_typed(const Context& ctx, const ConstView& dw, const TensorView& dpool) const {
    const OnHost read(dw);
    const EditedOnHost written(dpool);
    const T* from = read.as<T>().data();
    T* to = written.as<T>().data();
    const int64_t cols = shape_[1];
#pragma omp parallel for schedule(static) num_threads(ctx.threads) if (ctx.threads > 1)
    for (int64_t row = 0; row < shape_[0]; ++row) {
      const int64_t i = begin_ + row * cols;
      kept_->for_kept(i, i + cols, [&](int64_t weight, int64_t cell) { to[cell] += from[weight - begin_]; });
    }
  }

  SlotId cells_;
  std::shared_ptr<const KeptWeights> kept_;
  Shape shape_;
  int64_t begin_, first_;  // weight, and cell
  bool trainable_, whole_;
};

class Magnitude final : public BaseSharing {
 public:
  Magnitude(const SharingConfig& config, KeyPlaces where) : config_(config), where_(std::move(where)) {}

  std::vector<Weight> bind(std::span<const WeightSpec> specs, ParameterPool& pool,
                           const BaseOptions& options) override {
    for (const int i : shared_specs(specs, config_, where_)) {
      require_trained_alike(specs.subspan(static_cast<size_t>(i), 1), options, config_, where_);
      tensors_.push_back({specs[i], weights_});
      weights_ = tensors_.back().end();
    }
    cells_ = cells_of(config_, weights_, where_);
    seed_ = options.saved ? saved_seed(*options.saved) : options.seed;
    source_ = options.saved ? nullptr : options.source;
    if (pool.memory() == Memory::held) {
      kept_ = std::make_shared<const KeptWeights>(magnitudes_in(pool.dtype()), weights_, cells_);
      if (options.saved) options.saved->require_same(descriptor());
    }
    slot_ = bind_slot(kSlot, pool_options(options.trainable), pool, options,
                      [this](int64_t j) { return readers(kSlot, j); });
    return make_views(specs, pool, options);
  }

  Json descriptor() const override {
    Json json = Json::object().set("method", "magnitude").set("version", 1).set("weights", weights_);
    json.set("cells", cells_).set("drawn", source_ == nullptr);
    if (!source_) json.set("seed", static_cast<int64_t>(seed_));
    return kept_ ? json.set("fnv1a", fmt::format("{:016x}", kept_->fingerprint())) : json;
  }

  int64_t table_bytes() const override { return KeptWeights::bytes(weights_); }

  /// The mask of stored weights is not saved.
  bool is_loadable() const override { return !source_; }

  std::vector<std::string> notes() const override {
    std::vector<std::string> lines = {
        fmt::format("magnitude: the {} largest of {} weights of {} tensors are kept ({:.4g}x), the others are 0",
                    cells_, weights_, tensors_.size(), static_cast<double>(weights_) / static_cast<double>(cells_))};
    for (const PrunedTensor& t : tensors_)
      if (kept_ && kept_->cell(t.begin) == kept_->cell(t.end()))
        lines.push_back(fmt::format("warning: magnitude: nothing of \"{}\" is kept", t.spec.storage));
    return lines;
  }

  std::string readers(const std::string& slot, int64_t index) const override {
    if (slot != kSlot || !kept_) return BaseSharing::readers(slot, index);
    for (const PrunedTensor& t : tensors_) {
      if (index >= kept_->cell(t.end())) continue;
      int64_t reader = 0;
      kept_->for_kept(t.begin, t.end(),
                      [&](int64_t i, int64_t cell) { reader = cell == index ? i - t.begin : reader; });
      return fmt::format("cell {} of {}, read by {}[{}, {}]", index, slot, t.spec.storage, reader / t.spec.shape[1],
                         reader % t.spec.shape[1]);
    }
    return BaseSharing::readers(slot, index);
  }

 private:
  /// The mask is a function of it.
  uint64_t saved_seed(const SavedSharing& saved) const {
    const Json* seed = saved.description().find("seed");
    if (!seed || !seed->is_integer())
      throw UserError(where_.of({"load", "method"}), "magnitude: the mask of a model that was not drawn is not saved",
                      "use the dense model that the run wrote beside it, with sharing.method = \"none\"");
    return static_cast<uint64_t>(seed->as_integer());
  }

  Magnitudes magnitudes_in(DType dtype) const {
    return [this, dtype](const std::function<void(double)>& visit) {
      for (const PrunedTensor& t : tensors_) {
        const Tensor values = dense_values(t.spec, source_, dtype, seed_, config_.rules);
        for (int64_t e = 0; e < values.shape().count(); ++e) {
          const double value = element(values.view(), e);
          if (!std::isfinite(value))
            throw UserError(where_.section(),
                            fmt::format("magnitude: element {} of \"{}\" is {}", e, t.spec.name, value));
          visit(std::abs(value));
        }
      }
    };
  }

  SlotOptions pool_options(bool trainable) {
    SlotOptions options{.shape = {cells_}, .trainable = trainable, .init = {}};
    options.init.formula = [this](TensorView values, uint64_t seed) {
      TS_CHECK(source_ || seed == seed_, "the mask is of seed {}, the values of {}", seed_, seed);
      for (const PrunedTensor& t : tensors_)
        keep(t, dense_values(t.spec, source_, values.dtype, seed_, config_.rules).view(), values);
    };
    for (const PrunedTensor& t : tensors_)
      if (const int64_t end = kept_ ? kept_->cell(t.end()) : 0; end > 0 && end > kept_->cell(t.begin))
        options.parts.push_back({t.spec.storage, end});
    return options;
  }

  void keep(const PrunedTensor& t, ConstView from, TensorView to) const {
    kept_->for_kept(t.begin, t.end(),
                    [&](int64_t i, int64_t cell) { set_element(to, cell, element(from, i - t.begin)); });
  }

  std::vector<Weight> make_views(std::span<const WeightSpec> specs, ParameterPool& pool, const BaseOptions& options) {
    std::map<std::string, ViewPtr> by_storage;
    for (const PrunedTensor& t : tensors_)
      by_storage[t.spec.storage] = std::make_shared<PrunedView>(pool, slot_, kept_, t);
    return bind_others(specs, std::move(by_storage), pool, options);
  }

  SharingConfig config_;
  KeyPlaces where_;
  const SafetensorsReader* source_ = nullptr;
  uint64_t seed_ = 0;
  std::vector<PrunedTensor> tensors_;  // one a storage
  int64_t weights_ = 0, cells_ = 0;
  std::shared_ptr<const KeptWeights> kept_;  // null in a plan
  SlotId slot_ = -1;
};

}  // namespace

std::unique_ptr<BaseSharing> make_magnitude(const SharingConfig& config, const KeyPlaces& where) {
  return std::make_unique<Magnitude>(config, where);
}

}  // namespace tessera
