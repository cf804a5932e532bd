// The teacher runs first and leaves the states that are compared; then the student's pass as in any training
// (train/backprop.cpp), whose head has the teacher's beside it and whose way back takes up the distances of the last
// layers, each where its output's gradient passes by.

#include "compress/cure_loss.h"

#include <algorithm>
#include <utility>

#include "kernels/elementwise.h"
#include "kernels/host_work.h"
#include "kernels/tail_loss.h"
#include "train/two_way_pass.h"

namespace tessera {

bool has_teacher(const FoldConfig& fold) { return fold.kl_weight > 0 || fold.tail_weight > 0; }

CureLoss::CureLoss(const FoldConfig& fold, Model& teacher)
    : kl_weight_(fold.kl_weight),
      temperature_(fold.temperature),
      tail_weight_(fold.tail_weight),
      tail_layers_(fold.tail_layers),
      teacher_(teacher) {}

std::vector<std::string> CureLoss::parts() const {
  std::vector<std::string> names = {"nll"};
  if (has_kl()) names.emplace_back("kl");
  if (has_tail()) names.emplace_back("tail");
  return names;
}

/// Ascending; none where distances have no weight.
std::vector<CureLoss::TailLayer> CureLoss::tail_of(const Model& student) const {
  std::vector<TailLayer> tail;
  if (!has_tail()) return tail;
  const std::vector<BaseLayer>& layers = student.layers();
  const auto count = static_cast<int>(layers.size());
  for (int layer = std::max<int>(0, count - static_cast<int>(std::min<int64_t>(tail_layers_, count))); layer < count;
       ++layer) {
    const bool is_last = layer + 1 == count;  // behind it the original may have had blocks that are gone
    tail.push_back({layer, is_last ? teacher_.num_layers() : layers[static_cast<size_t>(layer)].original + 1});
  }
  return tail;
}

/// The states of the tail's layers, or the last one for the head alone; none where there is nothing to learn.
std::vector<TensorView> CureLoss::taught(const Context& ctx, const TokenBatch& batch,
                                         std::span<const TailLayer> tail) const {
  std::vector<int> states;
  for (const TailLayer& layer : tail) states.push_back(layer.state);
  if (states.empty() && has_kl()) states.push_back(teacher_.num_layers());
  return states.empty() ? std::vector<TensorView>() : teacher_.states(ctx, batch, states);
}

TaughtScores CureLoss::score(const Pass& pass, const DecoderModel& decoder, ConstView hidden, const BatchTokens& in,
                             std::span<const TensorView> taught, TensorView dhidden) const {
  if (!has_kl()) return {score_hidden(pass, decoder, hidden, in.rows(), in.labels(), dhidden), {}};
  return score_taught(pass, decoder, hidden, in, teacher_, taught.back(),
                      {.temperature = temperature_, .kl = kl_weight_}, dhidden);
}

double CureLoss::lowered(const Sums& sums) const {
  double lowered = sums.parts[0];
  if (has_kl()) lowered += kl_weight_ * temperature_ * temperature_ * sums.parts[1];
  if (has_tail()) lowered += tail_weight_ * sums.parts.back();
  return lowered;
}

CureLoss::Sums CureLoss::added(const Context& ctx, const PackedBatch& batch, const BatchTokens& in,
                               const TaughtScores& scores, ConstView tail, Sums sums) const {
  sums.parts.resize(parts().size());
  LossSums rows;
  rows["nll"] = sums.parts[0];
  rows["scored"] = sums.scored;
  rows = sum_up(ctx, batch, in.scored(), scores.rows, std::move(rows));
  sums.parts[0] = rows["nll"];
  sums.scored = rows["scored"];
  host_work(ctx, [&] {
    if (has_kl()) sums.parts[1] = sum_of_rows(scores.kl, sums.parts[1]);
    if (has_tail()) sums.parts.back() = sum_of_rows(tail, sums.parts.back());
  });
  return sums;
}

CureLoss::Sums CureLoss::add_gradients(const Context& ctx, Model& student, const PackedBatch& batch,
                                       const BackpropOptions& options, Sums sums) const {
  const DecoderModel& decoder = student.decoder();
  const auto scope = ctx.scratch.scope();
  const BatchTokens in(ctx, batch, student.bound_adapter());
  const std::vector<TailLayer> tail = tail_of(student);
  const std::vector<TensorView> taught = this->taught(ctx, in.tokens(), tail);
  const Dropout& dropout = options.dropout;
  const Pass pass{ctx, in.tokens(), {&student.pool()}, &student.pool(), dropout.seed, dropout.step, dropout.on};
  TwoWayPass way(pass, decoder, options.checkpoint_activations ? Keep::inputs : Keep::everything);
  const TaughtScores scores = score(pass, decoder, way.hidden(), in, taught, way.gradient());
  // A row keeps one number over all layers: these are added in the order of the rows, whatever the batch holds.
  const auto count = static_cast<int64_t>(in.rows().size());
  const TensorView distances =
      ctx.scratch.allocate({std::max<int64_t>(1, count)}, DType::f64).slice_rows(0, has_tail() ? count : 0);
  if (has_tail() && count > 0) fill(ctx, 0, distances);
  for (size_t i = tail.size(); i-- > 0;) {
    way.back_to(tail[i].layer + 1);
    tail_loss(ctx, {.student = way.output(tail[i].layer),
                    .teacher = taught[i],
                    .rows = in.rows(),
                    .eps = decoder.config().rms_norm_eps,
                    .grad_scale = tail_weight_,
                    .loss = distances,
                    .dstudent = way.gradient()});
  }
  way.finish();
  return added(ctx, batch, in, scores, distances, std::move(sums));
}

int64_t plan_cure_bytes(const CureLoss& loss, Model& student, int64_t rows, int64_t sequence_length, int threads,
                        bool checkpoint_activations) {
  return plan_widest(
      rows, sequence_length, student.pool().device(), threads, [&](const Context& ctx, const PackedBatch& batch) {
        loss.add_gradients(ctx, student, batch,
                           {.checkpoint_activations = checkpoint_activations, .dropout = {.on = true}}, {});
      });
}

}  // namespace tessera
