//   batch            |tokens|                     one pass over as many copies of it as there are points
//   pass             |copy 0 |copy 1 |...|
//   weights read      lane 0  lane 1  ...         base weights are the same for all and are read once
// A lane is what one copy's rows read: a perturbed copy of the trained values, or these values and a direction by which
// each matrix is perturbed on its way into the product.

#include "train/spsa/prober.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "kernels/elementwise.h"
#include "kernels/upload.h"
#include "kernels/votes.h"
#include "model/packed_attention.h"

namespace tessera {
namespace {

// Of all points of a pass. One pass reads frozen weights once, which saves 8 % of the time with 2 x 128 tokens of a
// 135M model; the activations of 2 x 512 no longer lie in the second-level cache, which costs more than it saves:
// 5 % with a model of width 96.
constexpr int64_t kTokensTogether = 512;

/// The same batch `copies` times, one behind the other; copies do not see each other.
struct Repeated {
  std::vector<int32_t> ids, positions, rows, labels;
  std::vector<AttentionSegment> segments;

  // Every copy's rows lie behind those of the copy before, with positions and segments of their own: attention keeps
  // them apart, and all other parts of a block look at one row at a time.
  Repeated(const PackedBatch& batch, const ScoredRows& scored, size_t copies) {
    const auto own = segments_of(batch);
    for (size_t k = 0; k < copies; ++k) {
      const auto offset = static_cast<int64_t>(k) * batch.tokens();
      ids.insert(ids.end(), batch.ids.begin(), batch.ids.end());
      positions.insert(positions.end(), batch.positions.begin(), batch.positions.end());
      labels.insert(labels.end(), scored.labels.begin(), scored.labels.end());
      for (const int32_t row : scored.rows) rows.push_back(static_cast<int32_t>(row + offset));
      for (AttentionSegment s : own) {
        for (int64_t* place : {&s.q_begin, &s.q_end, &s.k_begin, &s.k_end}) *place += offset;
        segments.push_back(s);
      }
    }
  }
};

}  // namespace

Prober::Prober(Model& model, Perturb perturb, int64_t side_by_side)
    : model_(model),
      perturb_(perturb),
      copies_(model.pool().memory(), model.pool().device()),
      lanes_(static_cast<size_t>(side_by_side)) {
  TS_CHECK(perturb == Perturb::copies || !model.bound_adapter(), "an adapter is perturbed in copies");
  for (Lane& lane : lanes_) {
    lane.read.pool = &model.pool();
    if (perturb == Perturb::copies) {
      const TensorView values = model.pool().trainable().values;
      lane.copy = copies_.allocate(values.shape, values.dtype);
      lane.read.flat = lane.copy;
    }
    if (const BoundAdapter* bound = model.bound_adapter())
      lane.adapter = std::make_unique<BoundAdapter>(bound->weights(), model.pool(), lane.read);
  }
}

void Prober::point_lanes(const Context& ctx, std::span<const Point> points) {
  const TensorView values = model_.pool().trainable().values;
  for (size_t k = 0; k < points.size(); ++k) {
    Lane& lane = lanes_[k];
    lane.point = points[k];
    if (perturb_ == Perturb::layers) {
      // Read through z: each matrix is perturbed as it is read, and no copy exists.
      lane.read.z = lane.point.scale != 0 ? &lane.point.z : nullptr;
      lane.read.scale = lane.point.scale;
    } else if (lane.point.scale != 0) {
      perturb(ctx, values, 0, lane.point.z, lane.point.scale, lane.copy);
    } else {
      convert(ctx, values, lane.copy);
    }
    // An adapter's matrices are assembled from this point's values.
    if (lane.adapter) lane.adapter->assemble(ctx);
  }
}

void Prober::run(const Context& ctx, const PackedBatch& batch, size_t first, std::span<LossSums> sums) {
  const DecoderModel& decoder = model_.decoder();
  const auto scope = ctx.scratch.scope();
  const ScoredRows scored = scored_rows(batch);
  const Repeated all(batch, scored, sums.size());
  // Which rows of the pass read which point's weights.
  std::vector<RowGroup> groups;
  for (size_t k = 0; k < sums.size(); ++k) {
    const auto begin = static_cast<int64_t>(k) * batch.tokens();
    const Lane& lane = lanes_[first + k];
    groups.push_back({begin, begin + batch.tokens(), lane.adapter.get(), &lane.read});
  }
  const TokenBatch tokens{upload(ctx, all.ids), upload(ctx, all.positions), {}, upload(ctx, all.segments), groups};
  const Pass pass{ctx, tokens, {&model_.pool()}};
  PackedAttention attention;
  const TensorView hidden = decoder.forward(pass, attention);
  const RowScores scores = score_hidden(pass, decoder, hidden, upload(ctx, all.rows), upload(ctx, all.labels));
  // The scored rows of all copies are equal in number and stand one behind the other.
  const auto share = static_cast<int64_t>(all.rows.size() / sums.size());
  for (size_t k = 0; k < sums.size(); ++k) {
    const auto begin = static_cast<int64_t>(k) * share;
    sums[k] = sum_up(ctx, batch, scored,
                     {scores.nll.slice_rows(begin, begin + share), scores.best.slice_rows(begin, begin + share)},
                     std::move(sums[k]));
  }
}

std::vector<LossSums> Prober::losses(const Context& ctx, std::span<const PackedBatch> batches,
                                     std::span<const Point> points) {
  std::vector<LossSums> sums(points.size());
  // More points than lanes take turns.
  for (size_t begin = 0; begin < points.size(); begin += lanes_.size()) {
    const size_t count = std::min(lanes_.size(), points.size() - begin);
    point_lanes(ctx, points.subspan(begin, count));
    for (const PackedBatch& batch : batches) {
      const size_t step = together(batch.tokens());
      for (size_t k = 0; k < count; k += step)
        run(ctx, batch, k, std::span(sums).subspan(begin + k, std::min(step, count - k)));
    }
  }
  return sums;
}

size_t Prober::together(int64_t tokens) const {
  // At least one point: a batch of many tokens fills a pass by itself.
  return std::clamp<size_t>(static_cast<size_t>(kTokensTogether / std::max<int64_t>(1, tokens)), 1, lanes_.size());
}

int64_t Prober::micro_rows(const TrainConfig& train) const {
  const int64_t tokens = perturb_ == Perturb::layers ? 2048 : 512;
  const int64_t wanted =
      train.micro_batch > 0 ? train.micro_batch : std::max<int64_t>(1, tokens / train.sequence_length);
  return std::min(wanted, train.batch);
}

int64_t Prober::owned_bytes() const {
  int64_t bytes = copies_.bytes();
  for (const Lane& lane : lanes_)
    if (lane.adapter) bytes += lane.adapter->assembled_bytes();
  return bytes;
}

int64_t Prober::plan_bytes(int64_t rows, int64_t sequence_length, int threads) {
  int64_t bytes = plan_pass(rows, sequence_length, threads);
  for (auto points = static_cast<int64_t>(lanes_.size()); points > 1; --points)  // fewer rows may go side by side
    if (const int64_t fewer = std::min(rows, kTokensTogether / (points * sequence_length)); fewer > 0)
      bytes = std::max(bytes, plan_pass(fewer, sequence_length, threads));
  return bytes;
}

int64_t Prober::plan_pass(int64_t rows, int64_t sequence_length, int threads) {
  const std::vector<Point> points(lanes_.size(), Point{{}, 1.0f});
  return plan_widest(rows, sequence_length, model_.pool().device(), threads,
                     [&](const Context& ctx, const PackedBatch& batch) {
                       losses(ctx, {&batch, 1}, points);
                     });
}

}  // namespace tessera
