#include "infer/score.h"

#include <numeric>
#include <vector>

#include "infer/forward.h"
#include "model/packed_attention.h"

namespace tessera {

double sequence_nll(const Context& ctx, Model& model, std::span<const int32_t> ids) {
  const DecoderModel& decoder = model.decoder();
  const auto tokens = static_cast<int64_t>(ids.size());
  if (tokens > decoder.max_position())
    throw UserError("", fmt::format("a text has {} tokens, but there are {} positions", tokens, decoder.max_position()),
                    "cut it into shorter texts");
  if (tokens < 2) return 0;

  const auto scope = ctx.scratch.scope();
  std::vector<int32_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  const AttentionSegment segment{0, tokens, 0, tokens};
  const RowGroup group{0, tokens, model.bound_adapter()};
  const TokenBatch batch{ids, positions, {}, {&segment, 1}, {&group, 1}};
  const Pass pass{ctx, batch, {&model.pool()}};
  PackedAttention attention;
  const TensorView nll = ctx.scratch.allocate({tokens - 1}, decoder.compute());
  const TensorView hidden = run_blocks(pass, decoder, attention);
  decoder.head(pass, hidden,
               {.rows = std::span<const int32_t>(positions).first(ids.size() - 1),
                .labels = ids.subspan(1),
                .nll = nll,
                .best = {},
                .dhidden = {}});
  if (ctx.scratch.is_counting()) return 0;
  double sum = 0;
  for (int64_t t = 0; t + 1 < tokens; ++t) sum += element(nll, t);
  return sum;
}

int64_t plan_score_bytes(Model& model, int64_t tokens, int threads) {
  Arena arena = Arena::counting();
  sequence_nll(counting_context(arena, threads), model, std::vector<int32_t>(static_cast<size_t>(tokens), 0));
  return arena.peak_bytes();
}

}  // namespace tessera
