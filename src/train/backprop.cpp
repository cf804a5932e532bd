#include "train/backprop.h"

#include "kernels/table.h"
#include "model/packed_attention.h"

namespace tessera {

LossSums run_batch(const Context& ctx, Model& model, const PackedBatch& batch, const PassOptions& options) {
  DecoderModel& decoder = model.decoder();
  const auto scope = ctx.scratch.scope();
  const ScoredRows scored = scored_rows(batch);
  const auto segments = segments_of(batch);
  const RowGroup group{0, batch.tokens(), model.bound_adapter()};
  const TokenBatch tokens{batch.ids, batch.positions, batch.draw_index, segments, {&group, 1}};
  const Pass pass{ctx, tokens, {&model.pool()}, &model.pool(), options.seed, options.step, options.dropout};
  PackedAttention attention;
  const auto rows = static_cast<int64_t>(scored.rows.size());
  const TensorView nll = ctx.scratch.allocate({std::max<int64_t>(1, rows)}, decoder.compute());
  std::vector<int32_t> best(scored.rows.size());
  std::vector<BlockSaved> saved(static_cast<size_t>(decoder.num_layers()));
  const Keep keep = !options.backward                ? Keep::nothing
                    : options.checkpoint_activations ? Keep::inputs
                                                     : Keep::everything;

  const TensorView hidden = decoder.embed(pass);
  decoder.blocks(pass, decoder.all_layers(), attention, hidden, keep, saved);
  TensorView dhidden;
  if (options.backward) {
    dhidden = pass.rows(hidden.cols(), decoder.compute());
    clear(ctx, dhidden);
  }
  decoder.head(
      pass, hidden,
      {.rows = scored.rows, .labels = scored.labels, .nll = nll.slice_rows(0, rows), .best = best, .dhidden = dhidden});
  if (options.backward) {
    decoder.blocks_backward(pass, decoder.all_layers(), attention, keep, saved, dhidden);
    decoder.embed_backward(pass, dhidden);
  }
  if (ctx.scratch.is_counting()) return {};
  return sum_up(batch, scored, nll, best);
}

PackedBatch widest_batch(int64_t rows, int64_t sequence_length, int64_t document) {
  PackedBatch batch;
  batch.rows = rows;
  batch.sequence_length = sequence_length;
  const auto tokens = static_cast<size_t>(rows * sequence_length);
  batch.ids.assign(tokens, 0);
  batch.positions.assign(tokens, 0);
  batch.labels.assign(tokens, 0);
  batch.draw_index.assign(tokens, 0);
  for (int64_t begin = 0; begin < rows * sequence_length; begin += document)
    batch.documents.push_back({begin, std::min(begin + document, rows * sequence_length)});
  return batch;
}

int64_t plan_activation_bytes(Model& model, int64_t rows, int64_t sequence_length, int threads,
                              const PassOptions& options) {
  // The widest batch: every token scored. One document a row and many tiny ones need different attention scratch: both are run.
  int64_t bytes = 0;
  for (const int64_t document : {sequence_length, int64_t{2}}) {
    const PackedBatch batch = widest_batch(rows, sequence_length, document);
    Arena arena = Arena::counting();
    run_batch(counting_context(arena, threads), model, batch, options);
    bytes = std::max(bytes, arena.peak_bytes());
  }
  return bytes;
}

}  // namespace tessera
