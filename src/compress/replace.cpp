// Stage "replace": one block is trained in place of the run that fold.selector = "run" has found. replace.json tells
// which run it is and how the training went; replace.safetensors holds the block.

#include <algorithm>

#include "comm/from_root.h"
#include "comm/stop_together.h"
#include "compress/calibration.h"
#include "compress/gate_units.h"
#include "compress/json_numbers.h"
#include "compress/replace_trainer.h"
#include "compress/run_stages.h"
#include "core/error.h"
#include "io/safetensors.h"
#include "model/fold/plan_shapes.h"
#include "train/send_numbers.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kState = "replace-state.h5";

/// The state that a stopped or killed run left, the same on every rank.
void go_on(const StageInputs& in, BlockTrainer& trainer, const StageReads& reads) {
  const fs::path file = in.folder / kState;
  const std::string text = from_root(in.world, [&]() -> std::string {
    if (!fs::exists(file)) return "";
    std::string found = read_replace_text(file);
    require_same_reads(file, "replace", parse_replace_state(found).reads, reads);
    return found;
  });
  if (text.empty()) return;
  trainer.go_on(parse_replace_state(text).state);
  in.say(fmt::format("replace: going on from {}, step {}", name_of(trainer.objective()), trainer.state().step));
  const NamedTensors tensors = trainer.tensors();
  from_root(in.world, [&] {
    read_replace_tensors(file, tensors);
    return "";
  });
  for (const auto& [name, values] : tensors) send_numbers(in.world, values);
}

std::optional<HalfDone> half_done(const fs::path& folder) {
  const fs::path file = folder / kState;
  if (!fs::exists(file)) return std::nullopt;
  return HalfDone{file, parse_replace_state(read_replace_text(file)).reads};
}

void train(const StageInputs& in, BlockTrainer& trainer, const StageReads& reads) {
  const auto save = [&] {
    if (in.is_root()) write_replace_state(in.folder / kState, to_text(trainer.state(), reads), trainer.tensors());
  };
  const int64_t every = in.checkpoint.every;
  while (!trainer.is_done()) {
    const size_t measured = trainer.state().curve.size();
    bool is_asked = false;
    try {
      is_asked = trainer.advance();
    } catch (const Stopped&) {
      save();
      throw;
    }
    if (trainer.state().curve.size() > measured) in.say(trainer.progress());
    if (!trainer.has_stepped()) continue;
    const int64_t step = trainer.state().step;
    if (is_asked || (every > 0 && step % every == 0)) save();
    leave_together(in.world, is_asked, fmt::format("training a block in place of a run, after step {}", step));
  }
}

/// cos(x_s, x_{s+m}) of every run of m blocks, by s.  [L - m + 1]
Json cosines(const Json& probe, int64_t length) {
  const auto& rows = probe.at("similarity").items();
  Json all = Json::array();
  for (size_t s = 0; s + static_cast<size_t>(length) < rows.size(); ++s)
    all.push_back(rows[s].items()[s + static_cast<size_t>(length)].as_number());
  return all;
}

Json curve_of(const FoldConfig& fold, const ReplaceState& state) {
  const auto phases = replace_phases(fold);
  Json all = Json::array();
  for (const ReplacePoint& point : state.curve) {
    Json one = Json::object()
                   .set("objective", std::string(name_of(phases[static_cast<size_t>(point.phase)])))
                   .set("step", point.step);
    if (point.step > 0) one.set("train", point.train);
    all.push_back(one.set("validation", point.validation));
  }
  return all;
}

Json replace_json(const StageInputs& in) {
  return Json::object().set("format", "tessera fold replacement").set("version", 1).set("replace", in.fold.replace);
}

double relative(const BlockError& sums) { return sums.distance == 0 ? 0 : sums.error / sums.distance; }

/// Blocks of the run of other shapes than its first, whose shape the trained block has.
void tell_other_shapes(const StageInputs& in, const ReplacedRun& run) {
  const ModelShapes shapes = shapes_of(in.model.decoder().specs());
  for (int64_t block = run.first + 1; block < run.end; ++block)
    if (const std::string found = difference(shapes, run.first, block); !found.empty())
      in.say(fmt::format("replace: blocks {} and {} differ in {}: the trained block has the shape of block {}",
                         run.first, block, found, run.first));
}

StageOutcome nothing_to_replace(const StageInputs& in) {
  in.say("replace: nothing is removed, so that there is no run to replace");
  if (in.is_root()) write_safetensors(in.folder / kTrainedBlock, {});
  return {.file = replace_json(in).set("run", Json())};
}

StageOutcome replace(const StageInputs& in) {
  const Json probe = file_of_stage(in, "probe");
  const auto found = replaced_run(in);
  if (!found) return nothing_to_replace(in);
  const ReplacedRun& run = *found;
  in.say(fmt::format("replace: one block is trained in place of blocks {} to {}", run.first, run.end - 1));
  tell_other_shapes(in, run);
  StageReads reads;
  if (in.is_root()) reads = reads_of_recipe(find_stage("replace"), in);
  const auto student = replaced_model(in.model, run, {}, true);
  const PairSource pairs = streamed_pairs(in.model, run);
  const BlockError before = calibration_error(in, run, *student, pairs);
  BlockTrainer trainer(in, run, *student, pairs);
  go_on(in, trainer, reads);
  train(in, trainer, reads);
  const BlockError after = calibration_error(in, run, *student, pairs);
  in.say(fmt::format(
      "replace: the error is {:.4f} of the run's own step (1: the run left out), that of block {} alone {:.4f}",
      relative(after), run.first, relative(before)));
  write_trained_block(in, *student);
  const auto phases = static_cast<int64_t>(replace_phases(in.fold).size());
  return {
      .file = replace_json(in)
                  .set("run", Json::object().set("first", run.first).set("length", run.length()))
                  .set("cosines", cosines(probe, run.length()))
                  .set("distance", before.distance / before.numbers)
                  .set("relative_error", Json::object().set("before", relative(before)).set("after", relative(after)))
                  .set("curve", curve_of(in.fold, trainer.state())),
      .tokens = phases * in.fold.replace_steps * in.train.batch * in.train.sequence_length};
}

/// Of the run that takes most: gradients go through all blocks behind it, or all in front of its end are run.
StageCost replace_cost(const StageSizes& sizes) {
  const FoldConfig& fold = sizes.fold;
  const TrainConfig& train = sizes.train;
  const int64_t layers = sizes.model.decoder().num_layers(),
                count = blocks_to_remove(fold.remove, layers, protected_blocks(fold), "fold");
  if (count == 0) return {};
  const ReplacedRun run{fold.protect_head, fold.protect_head + count + 1};
  const auto student = replaced_model(sizes.model, run, {}, true, Memory::counted);
  const auto all = static_cast<double>(layers);
  const double whole = computed_parameters(sizes.model), cut = computed_parameters(*student), block = whole / all;
  const auto front = static_cast<double>(layers - fold.protect_tail),
             behind = static_cast<double>(layers - count - run.first);
  const int64_t measured = fold.calibration_rows * train.sequence_length *
                           (1 + (fold.replace_steps + replace_interval(fold) - 1) / replace_interval(fold)),
                trained = fold.replace_steps * train.batch * train.sequence_length;
  const int64_t rows = rows_of_pass(train, train.batch, sizes.ranks);
  const Device device = student->pool().device();
  StageCost cost{.held = student->pool().owned_bytes() + 3 * student->pool().trainable().values.bytes()};
  const auto add_pass = [&](const auto& pass) {
    cost.bytes = std::max(cost.bytes, plan_widest(rows, train.sequence_length, device, sizes.threads, pass));
  };
  const PairSource pairs = streamed_pairs(sizes.model, run);
  add_pass([&](const Context& ctx, const PackedBatch& batch) {
    block_error(ctx, *student, run, batch, pairs, Backward::yes);
  });
  for (const ReplaceObjective objective : replace_phases(fold)) {
    cost.tokens += trained;
    if (objective == ReplaceObjective::mse) {
      cost.flop += static_cast<double>(trained) * block * (2 * front + 6);
      cost.flop += static_cast<double>(measured) * block * (2 * front + 2);
      continue;
    }
    cost.flop += static_cast<double>(trained) * (2 * cut + block * (2 * behind + 2));
    cost.flop += static_cast<double>(measured) * 2 * cut;
    cost.bytes = std::max(cost.bytes, plan_calibration_bytes(sizes, *student));
    const Keep keep = train.checkpoint_activations ? Keep::inputs : Keep::everything;
    add_pass([&](const Context& ctx, const PackedBatch& batch) { backprop_to_block(ctx, *student, run, batch, keep); });
  }
  return cost;
}

bool has_replacement(const FoldConfig& fold) { return fold.replace != "none"; }

}  // namespace

Stage replace_stage() {
  return {.name = "replace",
          .file = "replace.json",
          .keys = {"fold.replace", "fold.replace_steps", "fold.replace_lr", "fold.calibration_rows", "train.batch",
                   "train.micro_batch", "train.sequence_length", "train.seed"},
          .inputs = {"probe", "remove"},
          .run = replace,
          .cost = replace_cost,
          .applies = has_replacement,
          .beside = {kTrainedBlock},
          .half_done = half_done,
          .takes_long = true};
}

}  // namespace tessera
