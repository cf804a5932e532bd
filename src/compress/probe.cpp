// Stage "probe": block influence and the similarity of all depths, in probe.json.

#include "compress/probe.h"

#include "compress/calibration.h"
#include "compress/json_numbers.h"
#include "core/device/memory.h"
#include "kernels/calibration.h"
#include "kernels/elementwise.h"
#include "kernels/host_work.h"
#include "kernels/upload.h"
#include "model/packed_attention.h"
#include "score/forward.h"

namespace tessera {
namespace {

/// x_0 .. x_L, from the pass's scratch.
std::vector<TensorView> states_of(const Pass& pass, const DecoderModel& decoder) {
  std::vector<TensorView> states;
  PackedAttention attention;
  const auto keep = [&](const TensorView& hidden) {
    states.push_back(pass.rows(hidden.cols(), decoder.activations()));
    convert(pass.ctx, hidden, states.back());
  };
  const TensorView hidden = decoder.embed(pass);
  keep(hidden);
  for (int layer = 0; layer < decoder.num_layers(); ++layer) {
    decoder.blocks(pass, {layer, layer + 1}, attention, hidden);
    keep(hidden);
  }
  return states;
}

StageOutcome probe(const StageInputs& in) {
  const Probe found = probe_blocks(in);
  const size_t states = found.influence.size() + 1;
  Json similarity = Json::array();
  for (size_t i = 0; i < states; ++i)
    similarity.push_back(array_of(std::span(found.similarity).subspan(i * states, states)));
  return {.file = Json::object()
                      .set("format", "tessera fold probe")
                      .set("version", 1)
                      .set("rows", in.fold.calibration_rows)
                      .set("tokens", found.tokens)
                      .set("bi", array_of(found.influence))
                      .set("similarity", std::move(similarity)),
          .tokens = found.tokens};
}

StageCost probe_cost(const StageSizes& sizes) {
  Model& model = sizes.model;
  const int64_t length = sizes.train.sequence_length, tokens = sizes.fold.calibration_rows * length;
  return {.tokens = tokens,
          .flop = 2 * static_cast<double>(tokens) * computed_parameters(model),
          .bytes = plan_widest(1, length, model.pool().device(), sizes.threads,
                               [&](const Context& ctx, const PackedBatch& batch) { cosine_sums(ctx, model, batch); })};
}

}  // namespace

std::vector<double> cosine_sums(const Context& ctx, Model& model, const PackedBatch& batch) {
  const auto scope = ctx.scratch.scope();
  const BatchTokens in(ctx, batch, model.bound_adapter());
  const std::vector<int32_t> tokens = document_tokens(batch);
  const IndexArray<int32_t> rows = upload(ctx, tokens);
  const Pass pass{ctx, in.tokens(), {&model.pool()}};
  const std::vector<TensorView> states = states_of(pass, model.decoder());
  const auto count = static_cast<int64_t>(states.size());
  const TensorView sums = ctx.scratch.allocate({count * count}, DType::f64);
  fill(ctx, 0, sums);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = i; j < count; ++j) {
      const int64_t place = i * count + j;
      add_cosines(ctx, states[i], states[j], rows, sums.slice_rows(place, place + 1));
    }
  std::vector<double> all;
  host_work(ctx, [&] {
    const OnHost host(sums);
    const auto upper = host.as<double>();
    all.assign(upper.begin(), upper.end());
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < i; ++j) all[i * count + j] = all[j * count + i];
  });
  return all;
}

Probe probe_blocks(const StageInputs& in) {
  const auto states = static_cast<size_t>(in.model.decoder().num_layers()) + 1;
  const std::vector<double> total = sums_over_calibration_rows(
      in, "comparing blocks", [&](const PackedBatch& batch) { return cosine_sums(in.ctx, in.model, batch); });
  Probe found{
      .similarity = {total.begin(), total.end() - 1}, .influence = {}, .tokens = static_cast<int64_t>(total.back())};
  for (double& cosine : found.similarity) cosine /= total.back();
  for (size_t l = 0; l + 1 < states; ++l) found.influence.push_back(1 - found.similarity[l * states + l + 1]);
  return found;
}

Stage probe_stage() {
  return {.name = "probe",
          .file = "probe.json",
          .keys = {"fold.calibration_rows", "train.sequence_length", "train.seed"},
          .inputs = {},
          .run = probe,
          .cost = probe_cost};
}

}  // namespace tessera
