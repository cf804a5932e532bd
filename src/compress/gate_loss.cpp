#include "compress/gate_loss.h"

#include <array>

#include "compress/teacher.h"
#include "kernels/host_work.h"
#include "model/packed_attention.h"
#include "train/two_way_pass.h"

namespace tessera {
namespace {

constexpr TaughtWeights kDivergence{.temperature = 1, .kl = 1, .nll = 0};

GateLossSums with_rows(const Context& ctx, const TensorView& kl, GateLossSums sums) {
  host_work(ctx, [&] {
    sums.loss = sum_of_rows(kl, sums.loss);
    sums.scored += static_cast<double>(kl.shape.count());
  });
  return sums;
}

/// The sums as scores of rows go on from them, and back.
LossSums begun(const GateLossSums& sums) {
  LossSums rows;
  rows["nll"] = sums.loss;
  rows["scored"] = sums.scored;
  return rows;
}
GateLossSums told(const LossSums& rows) { return {.loss = rows["nll"], .scored = rows["scored"]}; }

/// x_L without gates, from the context's scratch.
TensorView teachers_hidden(const Context& ctx, const Teacher& teacher, const BatchTokens& in) {
  const std::array<int, 1> last{teacher.num_layers()};
  return teacher.states(ctx, in.tokens(), last).front();
}

/// Like backprop_batch (train/backprop.cpp), behind a pass without gates and with another end.
GateLossSums backprop_divergence(const Context& ctx, Model& model, const PackedBatch& batch,
                                 const BackpropOptions& options, const GateLossSums& sums) {
  const DecoderModel& decoder = model.decoder();
  const auto scope = ctx.scratch.scope();
  const BatchTokens in(ctx, batch, model.bound_adapter(), options.gates);
  const Teacher teacher(model);
  const TensorView teachers = teachers_hidden(ctx, teacher, in);

  const Pass pass{ctx, in.tokens(), {&model.pool()}, &model.pool(), 0, 0, false, options.gate_grads};
  TwoWayPass way(pass, decoder, options.checkpoint_activations ? Keep::inputs : Keep::everything);
  const TensorView kl =
      score_taught(pass, decoder, way.hidden(), in, teacher, teachers, kDivergence, way.gradient()).kl;
  way.finish();
  return with_rows(ctx, kl, sums);
}

/// @param teachers  x_L of the model without gates
GateLossSums score_divergence(const Context& ctx, Model& model, const PackedBatch& batch, const BlockGates& gates,
                              ConstView teachers, const GateLossSums& sums) {
  const auto scope = ctx.scratch.scope();
  const BatchTokens in(ctx, batch, model.bound_adapter(), gates);
  const Pass pass{ctx, in.tokens(), {&model.pool()}};
  PackedAttention attention;
  const TensorView hidden = model.decoder().forward(pass, attention);
  const TensorView kl = score_taught(pass, model.decoder(), hidden, in, Teacher(model), teachers, kDivergence, {}).kl;
  return with_rows(ctx, kl, sums);
}

}  // namespace

GateLoss gate_loss_of(const FoldConfig& fold) {
  return fold.gate_loss == "kl" ? GateLoss::divergence : GateLoss::cross_entropy;
}

GateLossSums backprop_gates(const Context& ctx, Model& model, const PackedBatch& batch, GateLoss loss,
                            const BackpropOptions& options, GateLossSums sums) {
  if (loss == GateLoss::divergence) return backprop_divergence(ctx, model, batch, options, sums);
  return told(backprop_batch(ctx, model, batch, options, begun(sums)));
}

void score_gates(const Context& ctx, Model& model, const PackedBatch& batch, GateLoss loss,
                 std::span<const BlockGates> points, std::span<GateLossSums> sums) {
  const auto scope = ctx.scratch.scope();
  TensorView teachers;
  if (loss == GateLoss::divergence) {
    const BatchTokens in(ctx, batch, model.bound_adapter());
    teachers = teachers_hidden(ctx, Teacher(model), in);
  }
  for (size_t i = 0; i < points.size(); ++i) {
    if (loss == GateLoss::divergence)
      sums[i] = score_divergence(ctx, model, batch, points[i], teachers, sums[i]);
    else
      sums[i] = told(score_batch(ctx, model, batch, {}, points[i], begun(sums[i])));
  }
}

// A pass forward takes 2, and one backward 2 for the gradients of activations; no weight has one.
double backprop_flop(GateLoss loss, bool checkpoint_activations) {
  return 4 + (checkpoint_activations ? 2 : 0) + (loss == GateLoss::divergence ? 2 : 0);
}

double probe_flop(GateLoss loss) { return loss == GateLoss::divergence ? 6 : 4; }

}  // namespace tessera
