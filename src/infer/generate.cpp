// Continuous batching: a slot of the cache holds one sequence,
// and each pass feeds all slots what they have not seen yet.
//
//   pass 1   |prompt of slot 0       |first piece of slot 1's|
//   pass 2   |t|rest of slot 1's prompt        |prompt of slot 2|      t: one generated token
//   pass 3   |t|t|t|
//
// A row of logits is computed for the slots that a pass brings up to date.

#include "infer/generate.h"

#include <algorithm>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/stop.h"
#include "infer/draws.h"
#include "infer/kv_cache.h"
#include "kernels/compute.h"
#include "kernels/rounding.h"
#include "kernels/upload.h"

namespace tessera {
namespace {

using Prompts = std::vector<std::vector<int32_t>>;

constexpr int64_t kPromptTokens = 512;  // prompt tokens fed by one pass: large enough to keep matrix products busy

/// The tokens of one pass.
struct Feed {
  std::vector<int32_t> ids, positions;
  std::vector<AttentionSegment> segments;
  std::vector<int32_t> rows;   // whose logits are wanted
  std::vector<int64_t> slots;  // of these rows

  void add(CachedAttention& cache, int64_t slot, std::span<const int32_t> tokens) {
    const int64_t first = cache.length(slot);
    segments.push_back(cache.append(slot, static_cast<int64_t>(ids.size()), static_cast<int64_t>(tokens.size())));
    ids.insert(ids.end(), tokens.begin(), tokens.end());
    for (size_t i = 0; i < tokens.size(); ++i)
      positions.push_back(static_cast<int32_t>(first + static_cast<int64_t>(i)));
  }
  void want_logits_of_last(int64_t slot) {
    rows.push_back(static_cast<int32_t>(ids.size()) - 1);
    slots.push_back(slot);
  }
};

/// logits [rows, vocab] from scratch.
TensorView run_pass(const Context& ctx, Model& model, CachedAttention& cache, const Feed& feed) {
  const DecoderModel& decoder = model.decoder();
  const RowGroup group{0, static_cast<int64_t>(feed.ids.size()), model.bound_adapter()};
  const TensorView logits =
      // Taken before the scope opens: the logits outlive the pass, its activations do not.
      ctx.scratch.allocate({static_cast<int64_t>(feed.rows.size()), model.config().vocab_size}, decoder.activations());
  const auto scope = ctx.scratch.scope();
  const TokenBatch batch{
      upload(ctx, feed.ids), upload(ctx, feed.positions), {}, upload(ctx, feed.segments), {&group, 1}};
  const Pass pass{ctx, batch, {&model.pool()}};
  const TensorView hidden = decoder.forward(pass, cache);
  if (!feed.rows.empty()) decoder.logits(pass, hidden, upload(ctx, feed.rows), logits);
  return logits;
}

/// Rows a slot needs: the last new token is never fed.
int64_t cache_capacity(const Prompts& prompts, const GenerateOptions& options, int64_t max_position) {
  int64_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, static_cast<int64_t>(prompt.size()));
  return std::min(longest + options.max_new_tokens - 1, max_position);
}

int64_t cache_slots(const Prompts& prompts, const GenerateOptions& options) {
  return std::min(options.batch, static_cast<int64_t>(prompts.size()));
}

void check(const Model& model, const DecoderModel& decoder, const Prompts& prompts, const GenerateOptions& options) {
  TS_CHECK(options.max_new_tokens > 0 && options.batch > 0, "{} new tokens, {} sequences a batch",
           options.max_new_tokens, options.batch);
  // Sampling reads f32.
  TS_CHECK(decoder.activations() == DType::f32, "generation computes in f32, not {}", name_of(decoder.activations()));
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::string where = fmt::format("prompt {}", i + 1);
    if (prompts[i].empty())
      throw UserError(where, "the prompt has no tokens",
                      "this tokenizer puts none in front of a text: give a prompt of one character at least");
    const auto tokens = static_cast<int64_t>(prompts[i].size());
    if (tokens > decoder.max_position())
      throw UserError(
          where, fmt::format("the prompt has {} tokens, but there are {} positions", tokens, decoder.max_position()),
          fmt::format("shorten it; the model's max_position_embeddings is {}", model.config().max_position_embeddings));
  }
}

class Generator {
 public:
  Generator(const Context& ctx, Model& model, const Prompts& prompts, const GenerateOptions& options)
      : ctx_(ctx),
        model_(model),
        prompts_(prompts),
        options_(options),
        results_(prompts.size()),
        cache_(ctx.scratch, model.decoder(), cache_slots(prompts, options),
               cache_capacity(prompts, options, model.decoder().max_position())),
        sequences_(static_cast<size_t>(cache_.slots())) {}

  std::vector<Generated> run() {
    for (Feed feed = next_feed(); !feed.ids.empty(); feed = next_feed()) {
      leave_if_asked("generating");
      const auto scope = ctx_.scratch.scope();
      // Sampling is done on the host, one row of logits a slot.
      const OnHost logits(run_pass(ctx_, model_, cache_, feed));
      for (size_t i = 0; i < feed.slots.size(); ++i)
        extend(feed.slots[i],
               logits.view().slice_rows(static_cast<int64_t>(i), static_cast<int64_t>(i) + 1).as<float>());
    }
    return std::move(results_);
  }

 private:
  /// What a slot holds.
  struct Sequence {
    int64_t prompt = -1;          // its number; -1: none
    std::vector<int32_t> tokens;  // prompt and continuation
  };

  Feed next_feed() {
    Feed feed;
    int64_t room = kPromptTokens;
    for (int64_t slot = 0; slot < cache_.slots(); ++slot) {
      Sequence& sequence = sequences_[static_cast<size_t>(slot)];
      if (sequence.prompt < 0 && !begin_next(slot)) continue;
      // What the cache does not hold yet: the rest of a prompt, or the token that was chosen last.
      const auto unseen = std::span<const int32_t>(sequence.tokens).subspan(static_cast<size_t>(cache_.length(slot)));
      const auto pending = static_cast<int64_t>(unseen.size());
      // A sequence under way always gets its one token; pieces of prompts share the room that a pass has for them.
      const int64_t count = pending == 1 ? 1 : std::min(pending, room);
      if (count == 0) continue;
      if (pending > 1) room -= count;
      feed.add(cache_, slot, unseen.first(static_cast<size_t>(count)));
      // Only behind its last token does a sequence ask for logits: those of a prompt's inside are not needed.
      if (count == pending) feed.want_logits_of_last(slot);
    }
    return feed;
  }

  bool begin_next(int64_t slot) {
    if (next_prompt_ == static_cast<int64_t>(prompts_.size())) return false;
    // The slot's old rows are overwritten as the new sequence grows.
    cache_.truncate(slot, 0);
    sequences_[static_cast<size_t>(slot)] = {next_prompt_, prompts_[static_cast<size_t>(next_prompt_)]};
    ++next_prompt_;
    return true;
  }

  void extend(int64_t slot, std::span<const float> logits) {
    Sequence& sequence = sequences_[static_cast<size_t>(slot)];
    Generated& result = results_[static_cast<size_t>(sequence.prompt)];
    int32_t id = 0;
    try {
      // Keyed by prompt and number of the token: what shares the pass does not change the draw.
      id = choose_token(logits, options_.sampling,
                        draw_uniform(options_.seed, sequence.prompt, static_cast<int64_t>(result.ids.size())));
    } catch (const UserError& fault) {
      result.finish = Finish::failed;
      result.fault = fault.message();
      // The slot is free for the next prompt; the others have not noticed.
      sequence.prompt = -1;
      return;
    }
    const bool stop = std::find(options_.stop.begin(), options_.stop.end(), id) != options_.stop.end();
    if (!stop) {
      result.ids.push_back(id);
      sequence.tokens.push_back(id);
    }
    const bool enough = static_cast<int64_t>(result.ids.size()) == options_.max_new_tokens;
    // The token has no position left to be fed at.
    const bool full = static_cast<int64_t>(sequence.tokens.size()) > model_.decoder().max_position();
    if (!stop && !enough && !full) return;
    result.finish = stop ? Finish::stop : enough ? Finish::max_new_tokens : Finish::max_position;
    sequence.prompt = -1;
  }

  const Context& ctx_;
  Model& model_;
  const Prompts& prompts_;
  const GenerateOptions& options_;
  std::vector<Generated> results_;
  CachedAttention cache_;
  std::vector<Sequence> sequences_;
  int64_t next_prompt_ = 0;
};

}  // namespace

std::string_view name_of(Finish finish) {
  constexpr std::string_view kNames[] = {"stop", "max_new_tokens", "max_position", "failed"};
  return kNames[static_cast<int>(finish)];
}

std::vector<Generated> generate(const Context& ctx, Model& model, const Prompts& prompts,
                                const GenerateOptions& options) {
  check(model, model.decoder(), prompts, options);
  if (prompts.empty()) return {};
  require_exact_rounding(ctx);
  const auto scope = ctx.scratch.scope();
  return Generator(ctx, model, prompts, options).run();
}

int64_t plan_generation_bytes(Model& model, const Prompts& prompts, const GenerateOptions& options, int threads) {
  check(model, model.decoder(), prompts, options);
  if (prompts.empty()) return 0;
  // The widest pass that can occur: as many prompt tokens as fit, and a token and a row of logits for every slot.
  const Compute plan = Compute::counting(model.pool().device(), threads);
  const Context& ctx = plan;
  CachedAttention cache(ctx.scratch, model.decoder(), cache_slots(prompts, options),
                        cache_capacity(prompts, options, model.decoder().max_position()));
  int64_t tokens = 0;
  for (const auto& prompt : prompts) tokens += static_cast<int64_t>(prompt.size());
  Feed feed;
  feed.ids.assign(static_cast<size_t>(std::min(tokens, kPromptTokens) + cache.slots()), 0);
  feed.positions.assign(feed.ids.size(), 0);
  feed.rows.assign(static_cast<size_t>(cache.slots()), 0);
  run_pass(ctx, model, cache, feed);
  return plan.peak_bytes();
}

}  // namespace tessera
