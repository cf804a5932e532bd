// Stage "report": the model at each point that it has passed, side by side. report.json holds the figures, report.html
// draws them. A point that is done is kept in report-points.json, so that a report that was cut short goes on.

#include <algorithm>

#include "comm/from_root.h"
#include "comm/stop_together.h"
#include "compress/cured_model.h"
#include "compress/folded_folder.h"
#include "compress/folded_model.h"
#include "compress/report_page.h"
#include "compress/report_points.h"
#include "compress/run_stages.h"
#include "compress/share.h"
#include "core/error.h"
#include "io/files.h"
#include "io/sha256.h"
#include "model/fold/plan_file.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPage = "report.html", kPoints = "report-points.json";

/// Whether there is a cured model, the same on every rank.
bool is_cured(const StageInputs& in) {
  const bool is_there =
      is_asked(in.fold, "cure") && in.is_root() && fs::exists(folded_folder(in.folder, "cured") / "sharing.json");
  return broadcast_text(in.world, is_there ? "cured" : "") == "cured";
}

/// On rank 0: what the points read. Folded models go by their numbers.
StageReads reads_of_points(const StageInputs& in, const FoldPlan& plan) {
  StageReads reads = reads_of_recipe(find_stage("report"), in);
  reads.emplace_back("fold_plan.json", sha256_hex(fold_plan_text(plan)));
  for (const char* name : {"shared", "cured"}) {
    const fs::path file = folded_folder(in.folder, name) / "sharing.json";
    if (fs::exists(file))
      reads.emplace_back(name, Json::parse(read_text_file(file), file.string()).at("sha256").as_string());
  }
  return reads;
}

/// Points that were measured, of what they have read. Kept on rank 0, told to every rank.
class MeasuredPoints {
 public:
  MeasuredPoints(const StageInputs& in, const FoldPlan& plan) : in_(in) {
    from_root(in.world, [&] {
      reads_ = reads_of_points(in, plan);
      read();
      return "";
    });
  }
  /// The entry of that name, the same on every rank; none yet.
  std::optional<Json> find(const std::string& name) const {
    std::string text;
    for (const Json& point : points_)
      if (point.at("name").as_string() == name) text = point.dump();
    text = broadcast_text(in_.world, text);
    if (text.empty()) return std::nullopt;
    return Json::parse(text, file().string());
  }
  void add(const Json& point) {
    from_root(in_.world, [&] { return write(point), ""; });
  }

 private:
  fs::path file() const { return in_.folder / kPoints; }
  void write(const Json& point) {
    points_.push_back(point);
    write_text_file(file(), Json::object()
                                    .set("format", "tessera fold points")
                                    .set("version", 1)
                                    .set("reads", to_json(reads_))
                                    .set("points", points_)
                                    .dump(1) +
                                "\n");
  }
  /// Points of other reads, or in a file that something else has written, are measured again.
  void read() {
    if (!fs::exists(file())) return;
    try {
      const Json json = Json::parse(read_text_file(file()), file().string());
      if (json.at("version").as_integer() != 1 || stage_reads_of(json.at("reads")) != reads_) return;
      for (const Json& point : json.at("points").items()) {
        point.at("name").as_string();
        points_.push_back(point);
      }
      if (!points_.empty()) in_.say(fmt::format("report: going on behind point \"{}\"", last_name()));
    } catch (const UserError& fault) {
      points_.clear();
      in_.say(fmt::format("report: its points are measured again: {}", fault.what()));
    }
  }
  std::string last_name() const { return points_.back().at("name").as_string(); }

  const StageInputs& in_;
  StageReads reads_;    // rank 0
  Json::Array points_;  // rank 0
};

Json measured_points(const StageInputs& in, const FoldPlan& plan, const ReportRows& rows) {
  MeasuredPoints measured(in, plan);
  Json all = Json::array();
  for (const ReportPoint& point : report_points(plan, is_cured(in))) {
    leave_together(in.world, in.stop_requested(), "making the report");
    std::optional<Json> entry = measured.find(point.name);
    if (!entry) {
      entry = measure_point(in, point, rows);
      measured.add(*entry);
    }
    all.push_back(*std::move(entry));
  }
  return all;
}

Json corpus(const StageInputs& in, const ReportRows& rows, int64_t tokens) {
  const std::string eval = path_of_key(in, "data.eval");
  return Json::object()
      .set("file", in.eval && !eval.empty() ? eval : path_of_key(in, "data.train"))
      .set("rows", rows.which())
      .set("hash", rows.data().hash())
      .set("tokens", tokens)
      .set("sequence_length", in.train.sequence_length)
      .set("tokenizer", in.model.options().tokenizer_folder().string());
}

Json base(const StageInputs& in) {
  return Json::object()
      .set("path", in.model.options().path.string())
      .set("fingerprint", in.model.base_fingerprint())
      .set("model_type", in.model.base_config().family)
      .set("layers", in.model.decoder().num_layers());
}

Json gates(const Json& file) {
  const Json& losses = file.at("losses");
  return Json::object()
      .set("steps", file.at("steps"))
      .set("theta", file.at("theta"))
      .set("loss_original", losses.at("original"))
      .set("loss_soft", losses.at("soft"))
      .set("loss_hard", losses.at("hard"))
      .set("loss_bi", losses.at("bi"))
      .set("theta_every_10_steps", file.at("theta_every_10_steps"));
}

Json commands(const StageInputs& in) {
  const std::string run = in.folder.parent_path().string(),
                    folded = fmt::format(
                        "trainer {}/recipe.toml adapter.method=none sharing.method=fold sharing.load={}", run, run);
  return Json::array()
      .push_back(fmt::format("trainer {}/recipe.toml", run))
      .push_back(folded + " job=evaluate")
      .push_back(folded + " job=generate")
      .push_back(folded + " job=export export.merged=true");
}

/// On rank 0, from the files of the stages that were run.
Json report_json(const StageInputs& in, const FoldPlan& plan, const ReportRows& rows, Json points) {
  const int64_t tokens = points.items().front().at("tokens").as_integer();
  Json report = Json::object()
                    .set("format", "tessera fold report")
                    .set("version", 1)
                    .set("base", base(in))
                    .set("corpus", corpus(in, rows, tokens))
                    .set("points", std::move(points))
                    .set("plan", fold_plan_json(plan));
  const auto file_of = [&](std::string_view name) -> std::optional<Json> {
    if (!is_asked(in.fold, name)) return std::nullopt;
    const fs::path file = in.folder / find_stage(name).file;
    return Json::parse(read_text_file(file), file.string());
  };
  if (const auto probe = file_of("probe")) report.set("bi", probe->at("bi")).set("similarity", probe->at("similarity"));
  if (const auto trained = file_of("gates")) report.set("gates", gates(*trained));
  return report.set("commands", commands(in));
}

StageOutcome report(const StageInputs& in) {
  const ReportRows rows(in);
  const FoldPlan plan = asked_plan(in);
  if (!in.eval)
    in.say(
        "report: there is no held-out data: perplexities are of the calibration rows, which the plan was made by; "
        "set data.eval");
  Json points = measured_points(in, plan, rows);
  double tokens = 0;
  for (const Json& point : points.items()) tokens += point.at("tokens").as_number();
  StageOutcome outcome{.file = {}, .tokens = static_cast<int64_t>(tokens)};
  from_root(in.world, [&] {
    outcome.file = report_json(in, plan, rows, std::move(points));
    write_text_file(in.folder / kPage, report_page(in.folder.parent_path().filename().string(), outcome.file));
    for (const std::string& line : report_lines(outcome.file)) in.say(line);
    return "";
  });
  in.say(fmt::format("report: {}", (in.folder / kPage).string()));
  return outcome;
}

/// How many points the recipe's report has, at most.
int64_t points_asked(const FoldConfig& fold) {
  const bool is_removed = fold.remove > 0 || !fold.plan.empty();
  return 2 + (is_removed ? 1 : 0) + (fold.replace != "none" ? 1 : 0) + (fold.cure != "none" ? 1 : 0);
}

StageCost report_cost(const StageSizes& sizes) {
  const FoldPlan plan = widest_plan(sizes);
  const auto folded = counted_model(sizes, plan);
  int64_t tokens =
      sizes.eval_tokens > 0 ? sizes.eval_tokens : sizes.fold.calibration_rows * sizes.train.sequence_length;
  if (sizes.fold.report_tokens > 0) tokens = std::min(tokens, sizes.fold.report_tokens);
  const int64_t points = points_asked(sizes.fold);
  int64_t bytes = std::max(plan_point_bytes(sizes, sizes.model), plan_point_bytes(sizes, *folded));
  // The cured model has deltas that the folded one has not; where passes of training are small, these are the largest.
  if (is_asked(sizes.fold, "cure")) bytes = std::max(bytes, plan_point_bytes(sizes, *counted_student(sizes, plan)));
  return {.tokens = points * tokens,
          .flop = 2.0 * static_cast<double>(points * (tokens + tokens_of_speed())) * computed_parameters(sizes.model),
          .bytes = bytes,
          .held = folded_bytes_held(sizes, plan, *folded)};
}

}  // namespace

Stage report_stage() {
  return {.name = "report",
          .file = "report.json",
          .keys = {"fold.report_tokens", "fold.calibration_rows", "fold.cure", "train.sequence_length", "train.batch",
                   "train.micro_batch", "train.seed"},
          .inputs = {"probe", "gates", "replace", "group", "share", "cure"},
          .run = report,
          .cost = report_cost,
          .in_plan = false,
          .beside = {kPage},
          .is_reusable = false,
          .reads_eval = true,
          .takes_long = true};
}

}  // namespace tessera
