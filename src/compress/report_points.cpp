#include "compress/report_points.h"

#include <algorithm>
#include <cstring>

#include "comm/stop_together.h"
#include "compress/calibration.h"
#include "compress/folded_folder.h"
#include "compress/folded_model.h"
#include "compress/model_sizes.h"
#include "compress/share.h"
#include "core/functions/functions.h"
#include "infer/speed.h"
#include "score/forward.h"
#include "train/peak_memory.h"
#include "train/reporter.h"
#include "train/steps.h"

namespace tessera {
namespace {

constexpr SpeedTrial kTrial{.prompt = 512, .context = 64, .next = 64, .repeats = 5};

/// The plan with every block by itself.
FoldPlan unshared(const FoldPlan& plan, bool keeps_trained) {
  FoldPlan single = plan;
  single.groups.clear();
  single.child = {};
  for (const FoldGroup& group : plan.groups)
    for (const int64_t block : group.blocks)
      single.groups.push_back(group.values == GroupValues::trained && keeps_trained
                                  ? group
                                  : FoldGroup{.blocks = {block}, .parent = block, .values = GroupValues::own});
  return single;
}

bool has_trained(const FoldPlan& plan) {
  return std::ranges::any_of(plan.groups, [](const FoldGroup& g) { return g.values == GroupValues::trained; });
}

/// Whether a stage has kept the point's model.
bool is_kept(const ReportPoint& point) { return point.name == "shared" || point.name == "cured"; }

/// The model of a point; null: the original.
std::unique_ptr<Model> model_of(const StageInputs& in, const ReportPoint& point) {
  if (!point.plan) return nullptr;
  Model::Settings settings;
  if (is_kept(point)) {
    settings = folded_settings(in.model, {}, 0);
    settings.source = nullptr;
    settings.sharing.making = nullptr;
    settings.sharing.load = folded_folder(in.folder, point.name);
  } else {
    int64_t tokens = 0;
    settings = folded_settings(
        in.model, {.plan = *point.plan, .state = {.name = point.name}, .starts = starts_of(in, *point.plan, tokens)},
        0);
  }
  auto model = std::make_unique<Model>(settings);
  model->assemble(in.ctx);
  return model;
}

/// Pages of the original's files that nothing of this point reads are not to count as its memory.
void forget_pages(Model& original) {
  if (!original.source()) return;
  for (const auto& file : original.source()->files()) file->forget(file->bytes());
}

/// Rank 0 measures, and the others wait.
Speed speed_of(const StageInputs& in, Model& model) {
  std::optional<Speed> speed;
  if (in.is_root()) speed = measure_speed(in.ctx, model, kTrial, in.stop_requested);
  leave_together(in.world, in.is_root() && !speed, "measuring speeds");
  return speed.value_or(Speed{});
}

Json entry(const StageInputs& in, const std::string& name, const ReportRows::Sums& sums, const ModelSizes& sizes,
           const Speed& speed) {
  const double nll = sums.nll / sums.scored;
  return Json::object()
      .set("name", name)
      .set("perplexity", functions::exp(nll))
      .set("nll", nll)
      .set("tokens", static_cast<int64_t>(sums.scored))
      .set("layers_computed", sizes.layers_computed)
      .set("blocks_stored", sizes.blocks_stored)
      .set("parameters_stored", sizes.parameters_stored)
      .set("parameters_computed", sizes.parameters_computed)
      .set("bytes_disk", sizes.bytes_disk)
      .set("bytes_resident", sizes.bytes_resident)
      .set("peak_rss_bytes", peak_rss_bytes())
      .set("kv_bytes_per_token", sizes.kv_bytes_per_token)
      .set("prefill_tokens_per_second", speed.prefill)
      .set("decode_tokens_per_second", speed.decode)
      .set("threads", in.ctx.threads);
}

}  // namespace

std::vector<ReportPoint> report_points(const FoldPlan& plan, bool is_cured) {
  std::vector<ReportPoint> points = {{"original"}};
  if (has_removed(plan)) points.push_back({"removed", unshared(plan, false)});
  if (has_trained(plan)) points.push_back({"replaced", unshared(plan, true)});
  if (has_shared(plan)) points.push_back({"shared", plan});
  if (is_cured) points.push_back({"cured", plan});
  return points;
}

std::string path_of_key(const StageInputs& in, const std::string& key) {
  const auto found = in.keys.find(key);
  if (found == in.keys.end()) return "";
  return found->second.starts_with('"') ? Json::parse(found->second, key).as_string() : found->second;
}

ReportRows::ReportRows(const StageInputs& in) : data_(in.eval ? *in.eval : in.data) {
  if (in.eval) {
    which_ = path_of_key(in, "data.eval").empty() ? "held-out part of data.train" : "data.eval";
    for (int64_t row = 0; row < data_.rows(); ++row) rows_.push_back(row);
  } else {
    which_ = "calibration rows of data.train";
    require_calibration_rows(in);
    for (int64_t place = 0; place < in.fold.calibration_rows; ++place) rows_.push_back(data_.shuffled_row(place));
  }
  if (in.fold.report_tokens > 0) cut_to(in.fold.report_tokens);
}

void ReportRows::cut_to(int64_t tokens) {
  for (size_t i = 0; i < rows_.size(); ++i) {
    const int64_t scored = data_.batch({&rows_[i], 1}, 0).scored();
    if (scored >= tokens) {
      of_last_row_ = tokens;
      rows_.resize(i + 1);
      return;
    }
    tokens -= scored;
  }
}

PackedBatch ReportRows::batch(int64_t first, int64_t count) const {
  PackedBatch batch =
      data_.batch(std::span(rows_).subspan(static_cast<size_t>(first), static_cast<size_t>(count)), first);
  if (!of_last_row_ || first + count < static_cast<int64_t>(rows_.size())) return batch;
  int64_t left = *of_last_row_;
  for (auto label = batch.labels.end() - batch.sequence_length; label != batch.labels.end(); ++label)
    if (*label >= 0 && left-- <= 0) *label = -1;
  return batch;
}

ReportRows::Sums ReportRows::score(const StageInputs& in, Model& model) const {
  const int64_t of_pass = micro_batch_rows(in.train, 1), rows = static_cast<int64_t>(rows_.size());
  Sums total;
  // Of all ranks at a time, in rank order: in the order of the rows.
  for (int64_t begin = 0; begin < rows; begin += of_pass * in.world.size()) {
    leave_together(in.world, in.stop_requested(), "measuring perplexities");
    const int64_t first = begin + of_pass * in.world.rank();
    Sums mine;
    if (first < rows) {
      const LossSums sums = score_batch(in.ctx, model, batch(first, std::min(of_pass, rows - first)));
      mine = {sums["nll"], sums["scored"]};
    }
    for (const auto& bytes : in.world.all_gather(std::as_bytes(std::span(&mine, 1)))) {
      Sums sums;
      std::memcpy(&sums, bytes.data(), sizeof(Sums));
      total.nll += sums.nll;
      total.scored += sums.scored;
    }
  }
  return total;
}

Json measure_point(const StageInputs& in, const ReportPoint& point, const ReportRows& rows) {
  const auto made = model_of(in, point);
  Model& model = made ? *made : in.model;
  forget_pages(in.model);
  restart_peak_rss();
  const ReportRows::Sums sums = rows.score(in, model);
  const Speed speed = speed_of(in, model);
  const ModelSizes sizes = sizes_of(model, shapes_of(in.model.decoder().specs()), point.plan ? &*point.plan : nullptr);
  return entry(in, point.name, sums, sizes, speed);
}

int64_t plan_point_bytes(const StageSizes& sizes, Model& model) {
  return std::max(plan_score_bytes(model, micro_batch_rows(sizes.train, 1), sizes.train.sequence_length, sizes.threads),
                  plan_speed_bytes(model, kTrial, sizes.threads));
}

int64_t tokens_of_speed() { return kTrial.repeats * (kTrial.prompt + kTrial.context + kTrial.next); }
int64_t positions_of_speed() { return std::max(kTrial.prompt, kTrial.context + kTrial.next); }

}  // namespace tessera
