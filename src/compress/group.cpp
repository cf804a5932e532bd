// Stage "group": which of the blocks that are left share, and whose weights each group reads. fold_plan.json holds the
// plan, and deltas.json the distances that it was made by.

#include "comm/from_root.h"
#include "compress/grouping_keys.h"
#include "compress/json_numbers.h"
#include "compress/moments.h"
#include "compress/replaced.h"
#include "io/files.h"
#include "model/fold/plan_file.h"

namespace tessera {
namespace {

constexpr std::string_view kDeltas = "deltas.json";

/// The plan with nothing but what was removed.
FoldPlan removed_plan(const StageInputs& in) {
  const Json removed = file_of_stage(in, "remove");
  FoldPlan plan;
  plan.base = {.fingerprint = in.is_root() ? in.model.base_fingerprint() : "",
               .layers = in.model.decoder().num_layers(),
               .model_type = in.model.base_config().family};
  for (const Json& block : removed.at("removed").items()) plan.removed.push_back(block.as_integer());
  for (const Json& half : removed.at("removed_halves").items())
    plan.removed_halves.push_back({half.at("block").as_integer(), half.at("part").as_string() == name_of(BlockHalf::mlp)
                                                                      ? BlockHalf::mlp
                                                                      : BlockHalf::attention});
  plan.child = asked_child(in.fold);
  return plan;
}

/// Each of the distances that planning asked for, with what it is relative to.
Json distances(const Grouping& grouping, const std::vector<double>& magnitudes) {
  Json deltas = Json::array();
  for (const MeasuredDelta& measured : grouping.deltas) {
    const double magnitude = magnitudes[static_cast<size_t>(measured.child)];
    deltas.push_back(Json::object()
                         .set("child", measured.child)
                         .set("parent", measured.parent)
                         .set("delta", measured.delta)
                         .set("relative", magnitude == 0 ? 0 : measured.delta / magnitude));
  }
  return deltas;
}

Json deltas_json(const StageInputs& in, const Grouping& grouping, const std::vector<FoldBlock>& blocks,
                 int64_t tokens) {
  std::vector<double> magnitudes;
  magnitudes.reserve(blocks.size());
  for (const FoldBlock& block : blocks) magnitudes.push_back(magnitude_of(block));
  return Json::object()
      .set("format", "tessera fold deltas")
      .set("version", 1)
      .set("rows", in.fold.calibration_rows)
      .set("tokens", tokens)
      .set("magnitude", array_of(magnitudes))
      .set("deltas", distances(grouping, magnitudes))
      .set("cost", grouping.cost);
}

/// How the plan was found: what its stages read of the recipe, and what they measured of each block.
Json history_of(const StageInputs& in) {
  Json keys = Json::object();
  for (const Stage* stage : asked_stages(in.fold))
    for (const std::string_view key : stage->keys)
      if (const auto value = in.keys.find(std::string(key)); stage->in_plan && value != in.keys.end())
        keys.set(value->first, value->second);
  Json history = Json::object()
                     .set("selector", in.fold.selector)
                     .set("remove", in.fold.remove)
                     .set("seed", in.train.seed)
                     .set("data", in.data.hash())
                     .set("keys", std::move(keys))
                     .set("bi", file_of_stage(in, "probe").at("bi"));
  if (const Stage& gates = find_stage("gates"); gates.applies(in.fold)) {
    const Json trained = file_of_stage(in, "gates");
    history.set("theta", trained.at("theta")).set("gate", trained.at("gate"));
  }
  return history;
}

Grouping group_blocks(const StageInputs& in, const FoldPlan& removed, const std::optional<ReplacedRun>& run,
                      const std::vector<FoldBlock>& blocks) {
  const auto delta = [&](int64_t child, int64_t parent) {
    return delta_of(blocks[static_cast<size_t>(child)], blocks[static_cast<size_t>(parent)]);
  };
  GroupingOptions options = grouping_options(in.fold);
  if (run) options.trained = run->first;
  return plan_groups(removed, options, shapes_of(in.model.decoder().specs()), delta, in.where_fold);
}

void say_sizes(const StageInputs& in, const FoldPlan& plan) {
  const ModelShapes shapes = shapes_of(in.model.decoder().specs());
  const int64_t stored = stored_parameters(plan, shapes), original = model_parameters(shapes);
  in.say(fmt::format("grouped {} blocks into {}: {} of {} parameters are stored, {:.3f}", plan.virtual_layers(),
                     plan.groups.size(), stored, original,
                     static_cast<double>(stored) / static_cast<double>(original)));
}

StageOutcome group(const StageInputs& in) {
  const FoldPlan removed = removed_plan(in);
  const auto run = replaced_run(in);
  const auto cut = trained_model(in);
  CalibrationMoments moments = calibration_moments(in, removed, cut.get());
  const AbsorbedWeights absorbed(in.model, removed, kept_gates(in, removed));
  Json history = history_of(in);  // every rank takes part in reading the files
  StageOutcome outcome{.file = {}, .tokens = moments.tokens};
  outcome.text = from_root(in.world, [&] {
    const std::vector<FoldBlock> blocks =
        fold_blocks(cut ? *cut : in.model, removed, std::move(moments.blocks), &absorbed);
    Grouping grouping = group_blocks(in, removed, run, blocks);
    const Json deltas = deltas_json(in, grouping, blocks, outcome.tokens);
    write_text_file(in.folder / kDeltas, deltas.dump(1) + "\n");
    grouping.plan.history = history.set("deltas", deltas.at("deltas"));
    say_sizes(in, grouping.plan);
    return fold_plan_text(grouping.plan);
  });
  return outcome;
}

/// A forward pass over the calibration rows, and three operations a weight and ordered pair of blocks that lie less
/// than G apart.
StageCost group_cost(const StageSizes& sizes) {
  const int64_t tokens = sizes.fold.calibration_rows * sizes.train.sequence_length;
  const double weights = computed_parameters(sizes.model);
  return {.tokens = tokens,
          .flop = 2 * static_cast<double>(tokens) * weights + 6 * static_cast<double>(sizes.fold.group - 1) * weights,
          .bytes = plan_moments_bytes(sizes)};
}

}  // namespace

Stage group_stage() {
  return {.name = "group",
          .file = "fold_plan.json",
          .keys = {"fold.planning", "fold.group", "fold.groups", "fold.target", "fold.keep_head", "fold.keep_tail",
                   "fold.parent", "fold.child", "fold.child_rank", "fold.replace", "fold.absorb",
                   "fold.calibration_rows", "train.sequence_length", "train.seed"},
          .inputs = {"probe", "gates", "remove", "replace"},
          .run = group,
          .cost = group_cost,
          .beside = {kDeltas}};
}

}  // namespace tessera
