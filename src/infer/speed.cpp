#include "infer/speed.h"

#include <algorithm>
#include <chrono>

#include "core/device/memory.h"
#include "core/error.h"
#include "infer/kv_cache.h"
#include "kernels/compute.h"
#include "kernels/host_work.h"
#include "kernels/upload.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

int64_t positions_of(const SpeedTrial& trial) { return std::max(trial.prompt, trial.context + trial.next); }

/// One pass over `count` tokens behind those that the cache holds, and the logits of its last row on the host. Which
/// tokens they are does not matter. A counting pass has the first position alone.
void feed(const Context& ctx, Model& model, CachedAttention& cache, int64_t count, int64_t first) {
  const auto scope = ctx.scratch.scope();
  const DecoderModel& decoder = model.decoder();
  std::vector<int32_t> ids, positions;
  for (int64_t t = first; t < first + count; ++t) {
    ids.push_back(static_cast<int32_t>(t * 7919 % model.config().vocab_size));
    positions.push_back(ctx.scratch.is_counting() ? 0 : static_cast<int32_t>(t));
  }
  const std::vector<AttentionSegment> segments = {cache.append(0, 0, count)};
  const std::vector<int32_t> last = {static_cast<int32_t>(count) - 1};
  const RowGroup group{0, count, model.bound_adapter()};
  const TensorView logits = ctx.scratch.allocate({1, model.config().vocab_size}, decoder.activations());
  const TokenBatch batch{upload(ctx, ids), upload(ctx, positions), {}, upload(ctx, segments), {&group, 1}};
  const Pass pass{ctx, batch, {&model.pool()}};
  const TensorView hidden = decoder.forward(pass, cache);
  decoder.logits(pass, hidden, upload(ctx, last), logits);
  host_work(ctx, [&] { const OnHost done(logits); });
}

/// Tokens a second of so many passes of `count` tokens, behind what the cache holds.
double rate_of(const Context& ctx, Model& model, CachedAttention& cache, int64_t passes, int64_t count) {
  const auto begin = Clock::now();
  for (int64_t pass = 0; pass < passes; ++pass) feed(ctx, model, cache, count, cache.length(0));
  return static_cast<double>(passes * count) / std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace

std::optional<Speed> measure_speed(const Context& ctx, Model& model, const SpeedTrial& trial,
                                   const std::function<bool()>& stop) {
  TS_CHECK(trial.repeats > 0 && trial.prompt > 0 && trial.context > 0 && trial.next > 0,
           "{} repeats of {}, {} and {} tokens", trial.repeats, trial.prompt, trial.context, trial.next);
  TS_CHECK(positions_of(trial) <= model.decoder().max_position(), "{} positions of {}", positions_of(trial),
           model.decoder().max_position());
  const auto scope = ctx.scratch.scope();
  CachedAttention cache(ctx.scratch, model.decoder(), 1, positions_of(trial));
  std::vector<double> prefill, decode;
  for (int repeat = 0; repeat < trial.repeats; ++repeat) {
    if (stop && stop()) return std::nullopt;
    cache.truncate(0, 0);
    prefill.push_back(rate_of(ctx, model, cache, 1, trial.prompt));
    cache.truncate(0, 0);
    feed(ctx, model, cache, trial.context, 0);
    decode.push_back(rate_of(ctx, model, cache, trial.next, 1));
  }
  return Speed{median(prefill), median(decode)};
}

int64_t plan_speed_bytes(Model& model, const SpeedTrial& trial, int threads) {
  const Compute plan = Compute::counting(model.pool().device(), threads);
  const Context& ctx = plan;
  const auto scope = ctx.scratch.scope();
  CachedAttention cache(ctx.scratch, model.decoder(), 1, positions_of(trial));
  for (const int64_t tokens : {trial.prompt, trial.context, int64_t{1}}) {
    cache.truncate(0, 0);
    feed(ctx, model, cache, tokens, 0);
  }
  return plan.peak_bytes();
}

}  // namespace tessera
