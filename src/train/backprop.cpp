#include "train/backprop.h"

#include <cstring>
#include <numeric>

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
  const int layers = decoder.num_layers();
  const int64_t width = model.config().hidden_size;

  const auto wide = [&] { return ctx.scratch.allocate({batch.tokens(), width}, decoder.compute()); };
  const TensorView hidden = wide();
  const TensorView nll =
      ctx.scratch.allocate({std::max<int64_t>(1, static_cast<int64_t>(scored.rows.size()))}, decoder.compute());
  std::vector<int32_t> best(scored.rows.size());
  std::vector<BlockSaved> saved(static_cast<size_t>(layers));
  const bool keep = options.backward && !options.checkpoint_activations;

  decoder.embed(pass, hidden);
  for (int layer = 0; layer < layers; ++layer) {
    if (keep) saved[layer] = decoder.allocate_saved(pass);
    if (options.backward && !keep) {
      saved[layer].input = wide();
      convert(ctx, hidden, saved[layer].input);
    }
    decoder.block(pass, layer, attention, keep ? &saved[layer] : nullptr, hidden);
  }
  DecoderModel::Head head{.rows = scored.rows,
                          .labels = scored.labels,
                          .nll = nll.slice_rows(0, static_cast<int64_t>(scored.rows.size())),
                          .best = best,
                          .dhidden = {}};
  if (options.backward) {
    head.dhidden = wide();
    if (!ctx.scratch.is_counting())
      std::memset(head.dhidden.mutable_data(), 0, static_cast<size_t>(head.dhidden.bytes()));
  }
  decoder.head(pass, hidden, head);

  if (options.backward) {
    const bool train_embedding = decoder.trains_embedding();
    for (int layer = layers - 1; layer >= 0; --layer) {
      const auto layer_scope = ctx.scratch.scope();
      if (!keep) {  // run the block again from its kept input, this time keeping everything
        const TensorView again = wide();
        convert(ctx, saved[layer].input, again);
        BlockSaved full = decoder.allocate_saved(pass);
        decoder.block(pass, layer, attention, &full, again);
        saved[layer] = full;
      }
      decoder.block_backward(pass, layer, attention, saved[layer], head.dhidden, layer > 0 || train_embedding);
    }
    decoder.embed_backward(pass, head.dhidden);
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
    const Context ctx{
        .device = {}, .stream = {}, .kernels = kernels_for({}, "counting"), .scratch = arena, .threads = threads};
    run_batch(ctx, model, batch, options);
    bytes = std::max(bytes, arena.peak_bytes());
  }
  return bytes;
}

}  // namespace tessera
