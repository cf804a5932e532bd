// Stage "share": the folded model of the plan, in RUN/sharing. share.json tells what it holds and how well it does on
// the calibration rows, beside the original.

#include "compress/share.h"

#include <algorithm>
#include <cmath>

#include "comm/from_root.h"
#include "comm/stop_together.h"
#include "compress/calibration.h"
#include "compress/child_starts.h"
#include "compress/folded_folder.h"
#include "compress/folded_model.h"
#include "compress/grouping_keys.h"
#include "compress/moments.h"
#include "compress/replaced.h"
#include "core/error.h"
#include "core/functions/functions.h"
#include "model/fold/plan_file.h"
#include "model/fold/plan_shapes.h"

namespace tessera {

namespace fs = std::filesystem;

FoldPlan asked_plan(const StageInputs& in) {
  const fs::path file = in.fold.plan.empty() ? in.folder / find_stage("group").file : in.fold.plan;
  const FoldBase base{.fingerprint = broadcast_text(in.world, in.is_root() ? in.model.base_fingerprint() : ""),
                      .layers = in.model.decoder().num_layers(),
                      .model_type = in.model.base_config().family};
  FoldPlan plan = parse_fold_plan(text_on_all(in, file), file.string(), base);
  require_equal_shapes(plan, shapes_of(in.model.decoder().specs()), file.string());
  const auto run = replaced_run(in);
  for (const FoldGroup& group : plan.groups)
    if (group.values == GroupValues::trained && !run)
      throw UserError(
          file.string(),
          fmt::format("fold: block {} is to have trained weights, and there are none", group.blocks.front()),
          "leave \"values\" out: the block keeps the weights that it has in the original");
  return plan;
}

bool has_shared(const FoldPlan& plan) {
  return std::any_of(plan.groups.begin(), plan.groups.end(), [](const FoldGroup& g) { return g.blocks.size() > 1; });
}
bool has_removed(const FoldPlan& plan) { return !plan.removed.empty() || !plan.removed_halves.empty(); }

SlotStarts starts_of(const StageInputs& in, const FoldPlan& plan, int64_t& tokens) {
  CalibrationMoments moments;
  if (reads_moments(plan)) moments = calibration_moments(in, plan, trained_model(in).get());
  tokens += moments.tokens;
  moments.blocks.resize(static_cast<size_t>(plan.base.layers));
  const AbsorbedWeights absorbed(in.model, plan, kept_gates(in, plan));
  const std::vector<FoldBlock> blocks = fold_blocks(in.model, plan, std::move(moments.blocks), &absorbed);
  SlotStarts starts = child_starts(in.world, plan, blocks, [&] {
    leave_together(in.world, in.stop_requested(), "finding what shared blocks begin with");
  });
  if (const auto run = replaced_run(in)) add_trained_starts(plan, read_trained_block(in, *run), starts);
  absorbed.add_starts(plan, starts);
  if (!in.model.source()) add_drawn_starts(in.model, plan, starts);
  return starts;
}

namespace {

/// Of the calibration rows, at each point that the model passes on its way. A loss that no number can tell the
/// perplexity of is left out.
std::map<std::string, double> perplexities(const StageInputs& in, Model* cut, Model& folded, const FoldPlan& plan,
                                           const std::string& state) {
  std::map<std::string, double> found;
  const auto measure = [&](const std::string& point, Model& model, const BlockGates& gates) {
    const double perplexity = functions::exp(calibration_loss(in, model, gates));
    say_perplexity(in, point, perplexity);
    if (std::isfinite(perplexity)) found[point] = perplexity;
  };
  measure("original", in.model, {});
  const std::vector<double> open = kept_gates(in, plan);
  if (has_removed(plan) && (cut || has_shared(plan))) measure("removed", in.model, {BlockGates::Of::sublayers, open});
  if (cut && has_shared(plan)) measure("replaced", *cut, {});
  folded.assemble(in.ctx);
  measure(has_shared(plan) ? "shared" : cut ? "replaced" : state, folded, {});
  return found;
}

Json share_json(const FoldPlan& plan, const ModelShapes& shapes, const FoldState& state) {
  Json perplexity = Json::object();
  for (const auto& [point, value] : state.perplexity) perplexity.set(point, value);
  return Json::object()
      .set("format", "tessera fold sharing")
      .set("version", 1)
      .set("state", state.name)
      .set("layers", plan.base.layers)
      .set("virtual_layers", plan.virtual_layers())
      .set("groups", static_cast<int64_t>(plan.groups.size()))
      .set("parameters_original", model_parameters(shapes))
      .set("parameters_stored", stored_parameters(plan, shapes))
      .set("parameters_computed", computed_parameters(plan, shapes))
      .set("perplexity", std::move(perplexity));
}

/// Whether a plan's history is of a run whose gates were multiplied into weights: a plan does not have them.
bool had_absorbed(const FoldPlan& plan) {
  const Json* keys = plan.history.find("keys");
  const Json* absorb = keys ? keys->find("fold.absorb") : nullptr;
  return absorb && absorb->is_string() && absorb->as_string() == "true";
}

StageOutcome share(const StageInputs& in) {
  from_root(in.world, [&] { return require_untrained(in.folder), ""; });
  require_calibration_rows(in);
  const FoldPlan plan = asked_plan(in);
  if (!has_removed(plan) && !has_shared(plan))
    in.say("share: nothing is removed and nothing shared: the model stays as it was");
  if (!in.fold.plan.empty() && had_absorbed(plan))
    in.say("share: the plan is of a run with fold.absorb, whose gates no plan holds: the weights are the original's");
  FoldState state{.name = has_removed(plan) && !has_shared(plan) ? "removed" : "shared", .perplexity = {}};
  int64_t tokens = in.fold.calibration_rows * in.train.sequence_length;
  const auto cut = trained_model(in);
  FoldMaking making{.plan = plan, .state = state, .starts = starts_of(in, plan, tokens)};
  Model folded(folded_settings(in.model, std::move(making), static_cast<uint64_t>(in.train.seed)));
  state.perplexity = perplexities(in, cut.get(), folded, plan, state.name);
  folded_base(folded.sharing())->set_state(state);
  from_root(in.world, [&] { return keep_folded(in.folder, "shared", folded), ""; });
  in.say(fmt::format("folded model: {}", (in.folder.parent_path() / "sharing").string()));
  return {.file = share_json(plan, shapes_of(in.model.decoder().specs()), state), .tokens = tokens};
}

}  // namespace

/// The folded model's own numbers, what they are copied from, and for low-rank starts the matrices of one linear.
int64_t folded_bytes_held(const StageSizes& sizes, const FoldPlan& plan, Model& folded) {
  int64_t largest = 0;
  for (const WeightSpec& spec : sizes.model.decoder().specs())
    if (spec.role == Role::linear && spec.layer >= 0) largest = std::max(largest, spec.shape.count());
  constexpr int64_t kMatrices = 4;
  return 2 * folded.pool().owned_bytes() + folded.table_bytes() +
         (folded.bound_adapter() ? folded.bound_adapter()->assembled_bytes() : 0) +
         (plan.child.level == ChildLevel::lora ? kMatrices * largest * size_of(DType::f64) : 0);
}

namespace {

/// The calibration rows under the original, without what was removed, and folded; once more for the inputs of blocks.
StageCost share_cost(const StageSizes& sizes) {
  const FoldPlan plan = widest_plan(sizes);
  const auto folded = counted_model(sizes, plan);
  const int64_t tokens = sizes.fold.calibration_rows * sizes.train.sequence_length;
  const int passes = reads_moments(plan) ? 4 : 3;
  return {.tokens = tokens,
          .flop = 2.0 * passes * static_cast<double>(tokens) * computed_parameters(sizes.model),
          .bytes = std::max({plan_calibration_bytes(sizes, sizes.model), plan_calibration_bytes(sizes, *folded),
                             reads_moments(plan) ? plan_moments_bytes(sizes) : 0}),
          .held = folded_bytes_held(sizes, plan, *folded)};
}

}  // namespace

Stage share_stage() {
  return {.name = "share",
          .file = "share.json",
          .keys = {"fold.absorb", "fold.calibration_rows", "train.sequence_length", "train.micro_batch", "train.seed"},
          .inputs = {"gates", "group", "replace"},
          .run = share,
          .cost = share_cost,
          .in_plan = false,
          .beside = {"shared/sharing.json", "shared/fold_plan.json", "shared/fold.safetensors"},
          .is_reusable = false};
}

}  // namespace tessera
