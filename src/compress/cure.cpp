// Stage "cure": trains the folded model under its original as a teacher, as any training: steps, evaluations and
// checkpoints (in compress/checkpoints) are the training loop's. It leaves the folded model in state "cured", and
// cure.json, which tells how it was trained and how well it does on the calibration rows.

#include <algorithm>
#include <cmath>
#include <set>

#include "comm/from_root.h"
#include "comm/stop_together.h"
#include "compress/calibration.h"
#include "compress/cure_loss.h"
#include "compress/cured_model.h"
#include "compress/folded_folder.h"
#include "compress/gate_units.h"
#include "compress/run_stages.h"
#include "core/error.h"
#include "core/functions/functions.h"
#include "io/files.h"
#include "model/sharing/adapter.h"
#include "train/optimizers/optimizer.h"
#include "train/steps.h"
#include "train/trainer.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSteps = "train.steps";

/// On rank 0: what the cure reads. The folded model goes by its numbers: its description has perplexities, whose last
/// digits depend on the number of ranks.
StageReads reads_of_cure(const StageInputs& in) {
  StageReads reads = reads_of_recipe(find_stage("cure"), in);
  const fs::path file = folded_folder(in.folder, "shared") / "sharing.json";
  reads.emplace_back("fold.safetensors", Json::parse(read_text_file(file), file.string()).at("sha256").as_string());
  return reads;
}

/// The newest checkpoint, and what it has read; none: there is no checkpoint.
std::optional<HalfDone> newest(const fs::path& folder, std::vector<std::string>& notices) {
  const auto file = newest_checkpoint(folder / "checkpoints", notices);
  if (!file) return std::nullopt;
  const CheckpointMeta meta = read_checkpoint_meta(*file);
  const std::string* steps = value_of(meta.recipe, kSteps);
  return HalfDone{*file, meta.recipe, steps && *steps == std::to_string(meta.step)};
}

std::optional<HalfDone> half_done(const fs::path& folder) {
  std::vector<std::string> ignored;
  return newest(folder, ignored);
}

/// As job = "train" tells it.
std::string rate_notice(const StageInputs& in, const CheckpointMeta& saved) {
  const int64_t steps = *in.cure.trainer->train.steps, was = std::stoll(*value_of(saved.recipe, kSteps)),
                step = saved.step;
  const OptimizerConfig& optimizer = in.cure.trainer->optimizer;
  return fmt::format("{} was {}, now {}; the learning rate of step {} is {:.3g}, that of step {} was {:.3g}", kSteps,
                     was, steps, step + 1, learning_rate(optimizer, step + 1, steps), step,
                     learning_rate(optimizer, step, was));
}

/// The checkpoint that a cure left which was stopped, killed, or asked for fewer steps; empty: there is none. The same
/// on every rank. @throws UserError on every rank when it has read other values
fs::path checkpoint_to_go_on_from(const StageInputs& in, const StageReads& reads) {
  return from_root(in.world, [&]() -> std::string {
    std::vector<std::string> notices;
    const auto found = newest(in.folder, notices);
    for (const std::string& notice : notices) in.say(notice);
    if (!found) return "";
    const Stage& stage = find_stage("cure");
    const Journal journal(in.folder);
    require_same_recipe(stage, found->file, found->reads, reads, is_whole(stage, *found, journal.done(stage.name)));
    if (is_longer(stage, found->reads, reads)) in.say(rate_notice(in, read_checkpoint_meta(found->file)));
    return found->file.string();
  });
}

void say_what_is_trained(const StageInputs& in, Model& student) {
  const bool is_full = in.fold.cure == "full", has_adapter = in.cure.adapter->method != "none";
  in.say(fmt::format("cure: trains {} of {} numbers: {}", student.pool().trainable_count(),
                     student.pool().trainable_count() + student.pool().frozen_count(),
                     is_full       ? "all that the model stores"
                     : has_adapter ? fmt::format("what each layer has of its own, and its {}", in.cure.adapter->method)
                                   : "what each layer has of its own alone, since adapter.method is \"none\""));
}

std::string way_out(const StageInputs& in) {
  return fmt::format(
      "cure it anew with a lower rate: set run.dir to another folder, fold.reuse={} and "
      "optimizer.lr={:.3g}",
      in.folder.parent_path().string(), in.cure.trainer->optimizer.lr / 10);
}

TrainOutcome train(const StageInputs& in, Model& student) {
  const CureLoss loss(in.fold, in.model);
  StageReads reads;
  from_root(in.world, [&] { return reads = reads_of_cure(in), ""; });
  return run_training({.config = *in.cure.trainer,
                       .model = student,
                       .data = in.data,
                       .eval = in.cure.eval,
                       .world = in.world,
                       .ctx = in.ctx,
                       .report = *in.cure.report,
                       .folder = in.cure.folder,
                       .recipe = reads,
                       .base_fingerprint = in.is_root() ? in.model.base_fingerprint() : "",
                       .resume_from = checkpoint_to_go_on_from(in, reads),
                       .stop_requested = in.stop_requested,
                       .run_path = in.folder.parent_path(),
                       .share = in.share,
                       .loss = &loss,
                       .first_row = in.fold.calibration_rows,  // which perplexities are measured on
                       .checkpoints = in.folder / "checkpoints",
                       .way_out = way_out(in)});
}

/// Of the points that the model has passed, the last one measured here.
FoldState cured_state(const StageInputs& in, Model& student) {
  FoldState state{.name = "cured", .perplexity = {}};
  const Json points = Json::parse(text_on_all(in, in.folder / "share.json"), "share.json").at("perplexity");
  for (const auto& [point, value] : points.members()) state.perplexity[point] = value.as_number();
  const double perplexity = functions::exp(calibration_loss(in, student, {}));
  say_perplexity(in, state.name, perplexity);
  if (std::isfinite(perplexity)) state.perplexity[state.name] = perplexity;
  return state;
}

Json cure_json(const StageInputs& in, Model& student, const TrainOutcome& outcome, const FoldState& state) {
  Json perplexity = Json::object();
  for (const auto& [point, value] : state.perplexity) perplexity.set(point, value);
  Json json = Json::object()
                  .set("format", "tessera fold cure")
                  .set("version", 1)
                  .set("cure", in.fold.cure)
                  .set("steps", outcome.meta.step)
                  .set("tokens", outcome.meta.tokens)
                  .set("parameters_trained", student.pool().trainable_count())
                  .set("parameters_stored", student.pool().trainable_count() + student.pool().frozen_count());
  if (std::isfinite(outcome.meta.last_loss)) json.set("last_loss", outcome.meta.last_loss);
  return json.set("perplexity", std::move(perplexity));
}

StageOutcome cure(const StageInputs& in) {
  TS_CHECK(in.cure.trainer && in.cure.adapter && in.cure.report, "the cure is given no training");
  from_root(in.world, [&] { return require_untrained(in.folder), ""; });
  const auto student = student_of(in);
  require_equal(in.world, "the cured model's first values", values_hash(student->pool().trainable()));
  say_what_is_trained(in, *student);
  const TrainOutcome outcome = train(in, *student);
  leave_together(in.world, outcome.stopped, fmt::format("curing, after step {}", outcome.meta.step));
  const FoldState state = cured_state(in, *student);
  folded_base(student->sharing())->set_state(state);
  from_root(in.world, [&] { return keep_folded(in.folder, "cured", *student), ""; });
  return {.file = cure_json(in, *student, outcome, state), .tokens = outcome.meta.tokens};
}

/// Numbers that a token's pass through the R layers multiplies: without a plan, of which the share to remove is gone.
double student_parameters(const StageSizes& sizes, Model& student) {
  if (!sizes.fold.plan.empty()) return computed_parameters(student);
  const int64_t layers = sizes.model.decoder().num_layers();
  const int64_t gone = blocks_to_remove(sizes.fold.remove, layers, protected_blocks(sizes.fold), "fold");
  double outside = 0;
  for (const WeightSpec& spec : sizes.model.decoder().specs())
    if (spec.layer < 0 && spec.role != Role::embedding) outside += static_cast<double>(spec.shape.count());
  const double blocks = computed_parameters(sizes.model) - outside;
  return outside + blocks * static_cast<double>(layers - gone) / static_cast<double>(layers);
}

StageCost cure_cost(const StageSizes& sizes) {
  const TrainConfig& train = sizes.train;
  const auto student = counted_student(sizes, widest_plan(sizes));
  const int64_t rows = micro_batch_rows(train, sizes.ranks);
  const CureLoss loss(sizes.fold, sizes.model);
  const int64_t tokens = train.steps.value_or(0) * train.batch * train.sequence_length;
  const double products = (sizes.fold.cure == "full" ? 6 : 4) + (train.checkpoint_activations ? 2 : 0);
  const double flop = products * student_parameters(sizes, *student) +
                      (has_teacher(sizes.fold) ? 2 * computed_parameters(sizes.model) : 0);
  ParameterPool& pool = student->pool();
  return {.tokens = tokens,
          .flop = flop * static_cast<double>(tokens),
          .bytes = std::max({plan_cure_bytes(loss, *student, rows, train.sequence_length, sizes.threads,
                                             train.checkpoint_activations),
                             plan_score_bytes(*student, rows, train.sequence_length, sizes.threads),
                             plan_calibration_bytes(sizes, *student)}),
          .held = pool.owned_bytes() + student->table_bytes() +
                  (student->bound_adapter() ? student->bound_adapter()->assembled_bytes() : 0) +
                  optimizer_state_bytes(sizes.cure.trainer->optimizer, pool.trainable().values.shape.count())};
}

/// Of a section of the recipe, those that a training compares when it goes on.
template <class Config>
void add_section(const std::string& section, const std::set<std::string>& but, std::vector<std::string>& keys) {
  Fields fields;
  Config config;
  config.visit(fields);
  for (const Field& field : fields.list)
    if (field.on_resume != OnResume::free && !but.count(field.key)) keys.push_back(section + "." + field.key);
}

/// Left out is what the job's check lets have one value only.
std::vector<std::string> cure_keys() {
  std::vector<std::string> keys = {"fold.cure",        "fold.kl_weight",   "fold.temperature",
                                   "fold.tail_weight", "fold.tail_layers", "fold.calibration_rows"};
  add_section<AdapterConfig>("adapter", {"load"}, keys);
  add_section<OptimizerConfig>("optimizer", {}, keys);
  add_section<TrainConfig>("train", {"epochs", "estimator"}, keys);
  return keys;
}

bool is_cured(const FoldConfig& fold) { return fold.cure != "none"; }

}  // namespace

Stage cure_stage() {
  return {.name = "cure",
          .file = "cure.json",
          .keys = cure_keys(),
          .inputs = {"share"},
          .run = cure,
          .cost = cure_cost,
          .applies = is_cured,
          .in_plan = false,
          .beside = {"cured/sharing.json", "cured/fold_plan.json", "cured/fold.safetensors"},
          .is_reusable = false,
          .half_done = half_done,
          .longer = kSteps,
          .takes_long = true};
}

}  // namespace tessera
