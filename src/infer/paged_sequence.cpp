#include "infer/paged_sequence.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "kernels/upload.h"

namespace tessera {
namespace {

int64_t pages_per_bundle(const DecoderModel& decoder) {
  return decoder.num_layers() * decoder.config().num_key_value_heads;
}

ScheduleLimits limits_of(const DecoderModel& decoder, const KeyValuePages& pages, int64_t step_tokens) {
  return {.step_tokens = step_tokens,
          .sequences = 1,
          .bundles = pages.k.shape[0] / pages_per_bundle(decoder),
          .pages_per_bundle = pages_per_bundle(decoder),
          .page_tokens = pages.page_tokens};
}

}  // namespace

PagedSequence::PagedSequence(const DecoderModel& decoder, std::vector<int32_t> prompt, const SequenceLengths& lengths,
                             const KeyValuePages& pages, int threads)
    : decoder_(decoder),
      pages_(pages),
      requests_(1, {.prompt = std::move(prompt), .max_tokens = lengths.new_tokens}),
      batch_(plan_batch(requests_, PrefixMode::off, pages.page_tokens,
                        std::ssize(requests_[0].prompt) + lengths.new_tokens, threads)),
      shape_{decoder.config().num_attention_heads, decoder.config().num_key_value_heads, pages.page_tokens, threads},
      schedule_(batch_.tree, batch_.order, batch_.demands, limits_of(decoder, pages, lengths.step_tokens)),
      tails_(1) {}

int64_t PagedSequence::bundles_of(int64_t prompt, int64_t new_tokens, int64_t page_tokens) {
  return bundles_for(prompt, page_tokens) + bundles_for(new_tokens - 1, page_tokens);
}

void PagedSequence::append(int32_t id) {
  tails_[0].push_back(id);
  schedule_.append(0);
}

TensorView PagedSequence::pass(const Context& ctx, const PoolRead& values, BoundAdapter* adapter, Rows wanted) {
  const ScheduledStep step = schedule_.next();
  TS_CHECK(!step.work.empty(), "nothing of the sequence is left to be fed");
  StepPlan plan = plan_step(schedule_, step.work, batch_.fed, tails_, shape_);
  // A counting pass has the first position alone.
  if (ctx.scratch.is_counting()) std::fill(plan.positions.begin(), plan.positions.end(), 0);
  const int64_t tokens = std::ssize(plan.ids);
  std::vector<int32_t> rows(wanted == Rows::all ? plan.ids.size() : 1);
  std::iota(rows.begin(), rows.end(), static_cast<int32_t>(tokens - std::ssize(rows)));
  // Taken before the scope opens: the logits outlive the pass, its activations do not.
  const TensorView logits =
      ctx.scratch.allocate({std::ssize(rows), decoder_.config().vocab_size}, decoder_.activations());
  const auto scope = ctx.scratch.scope();
  const RowGroup group{0, tokens, adapter};
  const TokenBatch batch{upload(ctx, plan.ids), upload(ctx, plan.positions), {}, {}, {&group, 1}};
  const Pass pass{ctx, batch, values};
  PagedAttention attention(ctx, plan, pages_);
  decoder_.logits(pass, decoder_.forward(pass, attention), upload(ctx, rows), logits);
  return logits;
}

}  // namespace tessera
