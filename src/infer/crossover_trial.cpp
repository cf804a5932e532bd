#include "infer/crossover_trial.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <mutex>

#include "core/device/memory.h"
#include "core/random.h"
#include "kernels/compute.h"
#include "kernels/elementwise.h"
#include "kernels/host_work.h"
#include "kernels/paged_attention.h"
#include "kernels/upload.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSeconds = 0.4;
constexpr int64_t kLayers = 8;  // their keys are more than a second-level cache holds
constexpr int kRepeats = 3;
constexpr int64_t kMostRows = std::end(kTrialRows)[-1], kMostKeys = std::end(kTrialKeys)[-1];

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

enum class Form : uint8_t { joint, alone };

/// Queries, and pages of all layers with keys and values, in the context's scratch.
class Visits {
 public:
  Visits(const Context& ctx, const AttentionTrial& trial)
      : ctx_(ctx),
        trial_(trial),
        group_(trial.heads / trial.kv_heads),
        bundles_((kMostKeys + trial.page_tokens - 1) / trial.page_tokens) {
    const int64_t width = group_ * trial.head_dim;
    q_ = ctx.scratch.allocate({kMostRows, width}, DType::f32);
    out_ = ctx.scratch.allocate({kMostRows, width}, DType::f32);
    const Shape shape{bundles_ * kLayers, trial.page_tokens * trial.head_dim};
    pages_.k = ctx.scratch.allocate(shape, trial.kv_dtype);
    pages_.v = ctx.scratch.allocate(shape, trial.kv_dtype);
    pages_.page_tokens = trial.page_tokens;
    if (trial.kv_dtype == DType::i8) {
      pages_.k_scale = ctx.scratch.allocate({shape[0], trial.page_tokens}, DType::f32);
      pages_.v_scale = ctx.scratch.allocate({shape[0], trial.page_tokens}, DType::f32);
    }
    draw(0, q_);
    for (int64_t layer = 0; layer < kLayers; ++layer) write_layer(layer);
  }

  /// Seconds of one pass over the keys of the next layer.
  double attend(int64_t rows, int64_t keys, Form form) {
    const auto scope = ctx_.scratch.scope();
    std::vector<int32_t> table, positions(static_cast<size_t>(rows), static_cast<int32_t>(keys));
    for (int64_t b = 0; b < bundles_; ++b) table.push_back(static_cast<int32_t>(b * kLayers));
    const std::vector<int32_t> lengths = {static_cast<int32_t>(keys)};
    const std::vector<KeyRun> runs = {
        {.first = 0, .head_step = 0, .page_step = 1, .length_step = 0, .table = 0, .length = 0}};
    const std::vector<AttentionVisit> visits = visits_of(static_cast<int32_t>(rows), lengths[0], form);
    const PagedPlan plan = plan_tiles(visits, rows, group_, 1, ctx_.threads);
    const auto row_positions = upload(ctx_, positions);
    const PagedAttentionArgs args{.q = q_.slice_rows(0, rows),
                                  .out = out_.slice_rows(0, rows),
                                  .lse = {},
                                  .pages = pages_,
                                  .page_base = layer_,
                                  .heads = group_,
                                  .kv_heads = 1,
                                  .head_dim = trial_.head_dim,
                                  .scale = 1 / std::sqrt(static_cast<double>(trial_.head_dim)),
                                  .row_position = row_positions,
                                  .row_bound = row_positions,
                                  .tables = upload(ctx_, table),
                                  .lengths = upload(ctx_, lengths),
                                  .runs = upload(ctx_, runs),
                                  .visits = upload(ctx_, visits),
                                  .tiles = upload(ctx_, plan.tiles),
                                  .tile_visits = upload(ctx_, plan.tile_visits),
                                  .mass = {},
                                  .mass_offset = {},
                                  .mass_rows = {},
                                  .bytes = {}};
    layer_ = (layer_ + 1) % kLayers;
    const auto begin = Clock::now();
    paged_attention(ctx_, args);
    host_work(ctx_, [&] { const OnHost done(out_.slice_rows(0, 1)); });
    return seconds_since(begin);
  }

 private:
  static std::vector<AttentionVisit> visits_of(int32_t rows, int32_t keys, Form form) {
    if (form == Form::joint) return {{0, rows, 0, keys, 0, 1}};
    std::vector<AttentionVisit> visits;
    visits.reserve(static_cast<size_t>(rows));
    for (int32_t row = 0; row < rows; ++row) visits.push_back({row, row + 1, 0, keys, 0, 1});
    return visits;
  }

  /// Uniform in [−1, 1).
  void draw(uint64_t stream, const TensorView& to) const {
    host_work(ctx_, [&] {
      std::vector<float> numbers(static_cast<size_t>(to.shape.count()));
      for (size_t i = 0; i < numbers.size(); ++i)
        numbers[i] = 2 * to_unit(static_cast<uint32_t>(mix64(hash_key({stream, i})))) - 1;
      copy(ConstView(numbers.data(), to.shape, DType::f32), to);
    });
  }

  void write_layer(int64_t layer) {
    const auto scope = ctx_.scratch.scope();
    const Shape shape{kMostKeys, trial_.head_dim};
    const TensorView k = ctx_.scratch.allocate(shape, DType::f32), v = ctx_.scratch.allocate(shape, DType::f32);
    draw(static_cast<uint64_t>(2 * layer + 1), k);
    draw(static_cast<uint64_t>(2 * layer + 2), v);
    std::vector<int32_t> page, entry;
    for (int64_t i = 0; i < kMostKeys; ++i) {
      page.push_back(static_cast<int32_t>(i / trial_.page_tokens * kLayers));
      entry.push_back(static_cast<int32_t>(i % trial_.page_tokens));
    }
    const auto entries = upload(ctx_, entry);
    write_pages(ctx_, {.k = k,
                       .v = v,
                       .pages = pages_,
                       .page_base = layer,
                       .kv_heads = 1,
                       .head_dim = trial_.head_dim,
                       .page = upload(ctx_, page),
                       .entry = entries,
                       .position = {},
                       .fault = ctx_.scratch.allocate({kMostKeys}, DType::i32)});
  }

  const Context& ctx_;
  const AttentionTrial& trial_;
  int64_t group_, bundles_, layer_ = 0;
  TensorView q_, out_;
  KeyValuePages pages_;
};

Context on_one_thread(const Context& ctx) { return {ctx.device, ctx.stream, ctx.kernels, ctx.scratch, 1}; }

int64_t bytes_of(const Context& ctx, const AttentionTrial& trial) {
  const Compute counting = Compute::counting(ctx.device, 1);
  Visits visits(counting, trial);
  for (const Form form : {Form::joint, Form::alone}) visits.attend(kMostRows, kMostKeys, form);
  return counting.peak_bytes();
}

}  // namespace

std::vector<TimedVisit> time_visits(const Context& ctx, const AttentionTrial& trial, double seconds) {
  const auto begin = Clock::now();
  const Compute beside = Compute::beside(ctx, bytes_of(ctx, trial));
  const Context one = on_one_thread(beside);
  Visits visits(one, trial);
  visits.attend(kTrialRows[0], kMostKeys, Form::joint);  // warm
  std::vector<TimedVisit> timed;
  double slowest = 0;  // seconds a row and key, of both forms
  for (const int64_t rows : kTrialRows)
    for (const int64_t keys : kTrialKeys) {
      const auto size = static_cast<double>(rows * keys);
      if (seconds_since(begin) + slowest * size > seconds) return timed;
      TimedVisit best{rows, keys, HUGE_VAL, HUGE_VAL};
      // What is long is told by one look well enough.
      for (int i = 0; i < kRepeats && (i == 0 || best.joint + best.alone < seconds / 100); ++i) {
        best.joint = std::min(best.joint, visits.attend(rows, keys, Form::joint));
        best.alone = std::min(best.alone, visits.attend(rows, keys, Form::alone));
      }
      slowest = keys == kTrialKeys[0] ? slowest : (best.joint + best.alone) / size;
      timed.push_back(best);
    }
  return timed;
}

const Crossover& measured_crossover(const Context& ctx, const AttentionTrial& trial) {
  static std::mutex mutex;
  static std::map<std::pair<const Kernels*, AttentionTrial>, Crossover> kept;
  const std::scoped_lock lock(mutex);
  const auto [at, is_new] = kept.try_emplace({&ctx.kernels, trial});
  if (is_new) at->second = fit_crossover(time_visits(ctx, trial, kSeconds));
  return at->second;
}

}  // namespace tessera
