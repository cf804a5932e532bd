#include "infer/speed.h"

#include <algorithm>
#include <chrono>

#include "core/device/memory.h"
#include "core/error.h"
#include "infer/paged_sequence.h"
#include "kernels/compute.h"
#include "kernels/host_work.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kPageTokens = 16;

int64_t positions_of(const SpeedTrial& trial) { return std::max(trial.prompt, trial.context + trial.next); }

/// The last new token is never fed: one more than are wanted.
int64_t new_tokens_of(const SpeedTrial& trial) { return trial.next + 1; }

/// Which token stands at a position does not matter.
int32_t id_at(const Model& model, int64_t position) {
  return static_cast<int32_t>(position * 7919 % model.config().vocab_size);
}

/// Pages for the longer of both sequences, which have them one after the other.
KeyValuePages pages_of(const Context& ctx, Model& model, const SpeedTrial& trial) {
  const int64_t bundles = std::max(PagedSequence::bundles_of(trial.prompt, 1, kPageTokens),
                                   PagedSequence::bundles_of(trial.context, new_tokens_of(trial), kPageTokens));
  return allocate_pages(ctx.scratch, model.decoder(), bundles, kPageTokens, model.decoder().activations());
}

/// A sequence of a trial.
class TimedSequence {
 public:
  TimedSequence(const Context& ctx, Model& model, const KeyValuePages& pages, int64_t prompt, int64_t new_tokens)
      : ctx_(ctx),
        model_(model),
        sequence_(model.decoder(), ids(model, prompt), {.new_tokens = new_tokens, .step_tokens = prompt}, pages,
                  ctx.threads),
        length_(prompt) {}

  /// One pass, and the logits of its last row on the host.
  void pass() {
    const auto scope = ctx_.scratch.scope();
    const TensorView logits = sequence_.pass(ctx_, {&model_.pool()}, model_.bound_adapter(), PagedSequence::Rows::last);
    host_work(ctx_, [&] { const OnHost done(logits); });
  }
  void append_and_pass() {
    sequence_.append(id_at(model_, length_++));
    pass();
  }

 private:
  static std::vector<int32_t> ids(const Model& model, int64_t count) {
    std::vector<int32_t> all;
    for (int64_t t = 0; t < count; ++t) all.push_back(id_at(model, t));
    return all;
  }

  const Context& ctx_;
  Model& model_;
  PagedSequence sequence_;
  int64_t length_;
};

/// Tokens a second.
template <class Work> double rate_of(int64_t tokens, Work&& work) {
  const auto begin = Clock::now();
  work();
  return static_cast<double>(tokens) / std::chrono::duration<double>(Clock::now() - begin).count();
}

/// One repeat of both.
Speed run_trial(const Context& ctx, Model& model, const SpeedTrial& trial, const KeyValuePages& pages) {
  Speed speed;
  TimedSequence prefill(ctx, model, pages, trial.prompt, 1);
  speed.prefill = rate_of(trial.prompt, [&] { prefill.pass(); });
  TimedSequence decode(ctx, model, pages, trial.context, new_tokens_of(trial));
  decode.pass();
  speed.decode = rate_of(trial.next, [&] {
    for (int64_t t = 0; t < trial.next; ++t) decode.append_and_pass();
  });
  return speed;
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
  const KeyValuePages pages = pages_of(ctx, model, trial);
  std::vector<double> prefill, decode;
  for (int repeat = 0; repeat < trial.repeats; ++repeat) {
    if (stop && stop()) return std::nullopt;
    const Speed speed = run_trial(ctx, model, trial, pages);
    prefill.push_back(speed.prefill);
    decode.push_back(speed.decode);
  }
  return Speed{median(prefill), median(decode)};
}

int64_t plan_speed_bytes(Model& model, const SpeedTrial& trial, int threads) {
  const Compute plan = Compute::counting(model.pool().device(), threads);
  const Context& ctx = plan;
  // One repeat, counted: every pass of it, since plans of attention grow with what they read.
  run_trial(ctx, model, trial, pages_of(ctx, model, trial));
  return plan.peak_bytes();
}

}  // namespace tessera
