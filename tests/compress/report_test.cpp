// Stage "report": its points are the models that other jobs load, it goes on point by point, and its page is whole.

#include <gmock/gmock.h>

#include <cmath>
#include <map>

#include "compress/report_page.h"
#include "compress/report_points.h"
#include "compress/stages_bench.h"
#include "core/error.h"
#include "core/stop.h"
#include "io/files.h"
#include "model/fold/plan_file.h"
#include "model/fold/plan_shapes.h"
#include "score/evaluate.h"
#include "support/folds.h"
#include "support/html.h"
#include "support/thread_ranks.h"
#include "train/steps.h"

namespace tessera {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr test::TinyConfig kConfig{.layers = 6, .initializer_range = 0.3};

Model::Settings original_settings(const std::filesystem::path& folder) {
  Model::Settings settings = test::tiny_settings(folder, kConfig);
  settings.max_position = positions_of_speed();
  return settings;
}

/// What differs between two measurements of one model.
bool is_measured(const std::string& key) {
  return key == "peak_rss_bytes" || key == "prefill_tokens_per_second" || key == "decode_tokens_per_second";
}

class ReportStage : public test::StagesBench {
 protected:
  ReportStage() : ctx_(own_.ctx), original_(original_settings(folder_.path())), eval_(test::token_data(9, 10), 12, 1) {
    ctx_.threads = 1;
    create_folder(folder_ / "compress");
    for (const Stage& stage : stages())
      for (const std::string_view key : stage.keys) keys_[std::string(key)] = "as it was";
    keys_["data.eval"] = R"("a \"file\".jsonl")";
    fold_.selector = "bi";  // the gates' stage has left nothing
    plan_ = test::six_layers({ChildLevel::scale, 0});
  }

  StageInputs inputs_of(Communicator& world, Model& model, const Context& ctx) {
    StageInputs in = inputs(world, model, ctx);
    in.keys = keys_;
    in.eval = has_eval_ ? &eval_ : nullptr;
    in.stop_requested = [this, asked = 0]() mutable { return stops_after_ && ++asked > *stops_after_; };
    return in;
  }
  StageInputs own_inputs() { return inputs_of(*world_, original_, ctx_); }

  void share() {
    plan_.base.fingerprint = original_.base_fingerprint();
    fold_.plan = folder_ / "mine.json";
    write_fold_plan(fold_.plan, plan_);
    find_stage("share").run(own_inputs());
  }
  Json report() { return find_stage("report").run(own_inputs()).file; }

  std::map<std::string, Json> points(const Json& report) const {
    std::map<std::string, Json> found;
    for (const Json& point : report.at("points").items()) found[point.at("name").as_string()] = point;
    return found;
  }
  static std::vector<std::string> names(const std::vector<ReportPoint>& points) {
    std::vector<std::string> found;
    for (const ReportPoint& point : points) found.push_back(point.name);
    return found;
  }
  std::string comparable(const Json& report) const {
    Json kept = Json::array();
    for (const Json& point : report.at("points").items()) {
      Json of_point = Json::object();
      for (const auto& [key, value] : point.members())
        if (!is_measured(key)) of_point.set(key, value);
      kept.push_back(of_point);
    }
    Json all = report;
    return all.set("points", kept).dump();
  }
  /// As another job reads it.
  std::unique_ptr<Model> loaded() const {
    Model::Settings settings;
    settings.model.path = folder_.path();
    settings.sharing.method = "fold";
    settings.sharing.load = folder_.path();
    settings.max_position = positions_of_speed();
    auto model = std::make_unique<Model>(settings);
    model->assemble(own_.ctx);
    return model;
  }
  double nll(Model& model) {
    const LossSums sums = evaluate(own_.ctx, model, eval_, *world_, data_share_of(*world_), micro_batch_rows(train_, 1),
                                   0, [] { return false; });
    return sums["nll"] / sums["scored"];
  }

  Context ctx_;  // of one thread: threads of tiny models only wait for each other
  Model original_;
  PackedDataset eval_;
  std::map<std::string, std::string> keys_;
  FoldPlan plan_;
  bool has_eval_ = true;
  std::optional<int> stops_after_;
};

TEST_F(ReportStage, HasAPointForEachChange) {
  EXPECT_THAT(names(report_points(plan_, false)), ElementsAre("original", "removed", "shared"));
  EXPECT_THAT(names(report_points(plan_, true)), ElementsAre("original", "removed", "shared", "cured"));
  FoldPlan trained = plan_;
  trained.groups[0].values = GroupValues::trained;
  const auto points = report_points(trained, false);
  EXPECT_THAT(names(points), ElementsAre("original", "removed", "replaced", "shared"));
  EXPECT_EQ(points[1].plan->groups.size(), 5u);
  for (const FoldGroup& group : points[1].plan->groups) EXPECT_EQ(group.values, GroupValues::own);
  EXPECT_EQ(points[2].plan->groups.front().values, GroupValues::trained);
  const FoldPlan same = identity_plan({.fingerprint = {}, .layers = 6, .model_type = "llama"});
  EXPECT_THAT(names(report_points(same, false)), ElementsAre("original"));
}

TEST_F(ReportStage, TellsOfEachPointWhatItTakes) {
  share();
  const Json found = report();
  const std::vector<std::string> keys = {"name",
                                         "perplexity",
                                         "nll",
                                         "tokens",
                                         "layers_computed",
                                         "blocks_stored",
                                         "parameters_stored",
                                         "parameters_computed",
                                         "bytes_disk",
                                         "bytes_resident",
                                         "peak_rss_bytes",
                                         "kv_bytes_per_token",
                                         "prefill_tokens_per_second",
                                         "decode_tokens_per_second",
                                         "threads"};
  for (const auto& [name, point] : points(found)) {
    std::vector<std::string> own;
    for (const auto& [key, value] : point.members()) own.push_back(key);
    EXPECT_EQ(own, keys) << name;
    EXPECT_GT(point.at("prefill_tokens_per_second").as_number(), 0);
    EXPECT_GT(point.at("decode_tokens_per_second").as_number(), 0);
    EXPECT_GT(point.at("peak_rss_bytes").as_integer(), 1 << 20);
    EXPECT_EQ(point.at("perplexity").as_number(), std::exp(point.at("nll").as_number()));
    EXPECT_EQ(point.at("tokens").as_integer(), eval_.scored_tokens());
  }
  std::vector<std::string> top;
  for (const auto& [key, value] : found.members()) top.push_back(key);
  EXPECT_THAT(top, ElementsAre("format", "version", "base", "corpus", "points", "plan", "commands"))
      << "a plan of the user's: nothing was probed";
  EXPECT_EQ(found.at("corpus").at("hash").as_string(), eval_.hash());
  EXPECT_EQ(found.at("corpus").at("file").as_string(), "a \"file\".jsonl") << "as it is, not as TOML writes it";
  EXPECT_EQ(parse_fold_plan(found.at("plan").dump(), "report").groups, plan_.groups);

  auto of = points(found);
  const ModelShapes shapes = shapes_of(original_.decoder().specs());
  EXPECT_EQ(of["original"].at("parameters_stored").as_integer(), model_parameters(shapes));
  EXPECT_EQ(of["original"].at("parameters_computed").as_integer(), model_parameters(shapes));
  EXPECT_EQ(of["shared"].at("parameters_stored").as_integer(), stored_parameters(plan_, shapes));
  EXPECT_EQ(of["shared"].at("parameters_computed").as_integer(), computed_parameters(plan_, shapes));
  EXPECT_EQ(of["removed"].at("layers_computed").as_integer(), 5);
  EXPECT_EQ(of["removed"].at("blocks_stored").as_integer(), 5);
  EXPECT_EQ(of["shared"].at("blocks_stored").as_integer(), 3);
  EXPECT_EQ(of["original"].at("kv_bytes_per_token").as_integer(), 6 * 2 * 8 * 4);
  EXPECT_EQ(of["shared"].at("kv_bytes_per_token").as_integer(), 5 * 2 * 8 * 4) << "goes by the layers computed";
  EXPECT_EQ(of["shared"].at("bytes_disk").as_integer(),
            static_cast<int64_t>(std::filesystem::file_size(folder_ / "sharing/fold.safetensors")));
}

/// Of all weights, gains and deltas that the decoder reads, each address once.
int64_t distinct_bytes(Model& model) {
  std::map<const void*, int64_t> bytes;
  const PoolRead read{&model.pool()};
  const auto add = [&](const ViewPtr& view) {
    if (view) bytes[view->direct(read).data] = view->direct(read).bytes();
  };
  for (int i = 0; i < static_cast<int>(model.decoder().specs().size()); ++i) {
    add(model.decoder().weight(i));
    add(model.decoder().gain(i));
    if (!model.bound_adapter()) continue;
    for (const LowRank& delta : model.bound_adapter()->weights().by_weight[static_cast<size_t>(i)]) {
      add(delta.a);
      add(delta.bt);
    }
  }
  int64_t sum = 0;
  for (const auto& [address, count] : bytes) sum += count;
  return sum;
}

TEST_F(ReportStage, ResidentBytesAreThoseThatAPassReadsAndFollowWhatIsStored) {
  for (const FoldChild& child : {FoldChild{ChildLevel::norm, 0}, {ChildLevel::scale, 0}, {ChildLevel::lora, 2}}) {
    plan_.child = child;
    share();
    auto of = points(report());
    EXPECT_EQ(of["original"].at("bytes_resident").as_integer(), distinct_bytes(original_));
    EXPECT_EQ(of["shared"].at("bytes_resident").as_integer(), distinct_bytes(*loaded())) << name_of(child.level);
    EXPECT_EQ(of["shared"].at("bytes_resident").as_integer(), 4 * of["shared"].at("parameters_stored").as_integer());
    EXPECT_LT(of["shared"].at("bytes_resident").as_integer(), of["removed"].at("bytes_resident").as_integer());
  }
}

TEST_F(ReportStage, ItsPointsAreTheModelsThatOtherJobsRead) {
  share();
  auto of = points(report());
  EXPECT_EQ(of["original"].at("nll").as_number(), nll(original_));
  EXPECT_EQ(of["shared"].at("nll").as_number(), nll(*loaded()));
  const std::vector<double> open = {1, 0, 1, 1, 1, 1};
  LossSums hard;
  for (int64_t row = 0; row < eval_.rows(); ++row)
    hard = score_batch(own_.ctx, original_, eval_.batch({&row, 1}, row), {}, {BlockGates::Of::blocks, open},
                       std::move(hard));
  EXPECT_NEAR(of["removed"].at("nll").as_number(), hard["nll"] / hard["scored"], 1e-6);
  // Read again where it lies once a training has left it there.
  const auto model = loaded();
  fold_.cure = "adapter";
  folded_base(model->sharing())->set_state({"cured", {}});
  save_sharing(folder_ / "compress/cured", *model);
  of = points(report());
  ASSERT_EQ(of.count("cured"), 1u);
  EXPECT_EQ(of["cured"].at("nll").as_number(), of["shared"].at("nll").as_number());
  EXPECT_EQ(of["cured"].at("parameters_computed").as_integer(), of["shared"].at("parameters_computed").as_integer());
}

TEST_F(ReportStage, CountsTheFirstScoredTokens) {
  share();
  int64_t row = 0;
  const int64_t of_first = eval_.batch({&row, 1}, 0).scored();
  fold_.report_tokens = of_first + 3;
  auto of = points(report());
  EXPECT_EQ(of["original"].at("tokens").as_integer(), of_first + 3);
  LossSums sums = score_batch(own_.ctx, original_, eval_.batch({&row, 1}, 0));
  row = 1;
  PackedBatch second = eval_.batch({&row, 1}, 1);
  int64_t seen = 0;
  for (int32_t& label : second.labels)
    if (label >= 0 && ++seen > 3) label = -1;
  sums = score_batch(own_.ctx, original_, second, {}, {}, std::move(sums));
  EXPECT_NEAR(of["original"].at("nll").as_number(), sums["nll"] / sums["scored"], 1e-6);
  fold_.report_tokens = 1'000'000;
  keys_["fold.report_tokens"] = "1000000";
  of = points(report());
  EXPECT_EQ(of["original"].at("tokens").as_integer(), eval_.scored_tokens()) << "no more than there are";
}

TEST_F(ReportStage, GoesOnBehindThePointsThatAreDone) {
  share();
  const std::string whole = comparable(report());
  std::filesystem::remove(folder_ / "compress/report-points.json");
  stops_after_ = 8;  // in the second point
  EXPECT_THROW(report(), Stopped);
  const std::string file = read_text_file(folder_ / "compress/report-points.json");
  const Json kept = Json::parse(file, "points");
  ASSERT_FALSE(kept.at("points").items().empty());
  ASSERT_LT(kept.at("points").items().size(), 3u);
  stops_after_.reset();
  const Json found = report();
  EXPECT_EQ(comparable(found), whole);
  for (size_t i = 0; i < kept.at("points").items().size(); ++i)
    EXPECT_EQ(found.at("points").items()[i].dump(), kept.at("points").items()[i].dump()) << "not measured again";
  EXPECT_THAT(said_, testing::Contains(HasSubstr("report: going on behind point")));

  write_text_file(folder_ / "compress/report-points.json", file);
  keys_["fold.report_tokens"] = "7";
  fold_.report_tokens = 7;
  EXPECT_EQ(points(report())["original"].at("tokens").as_integer(), 7) << "points of other reads do not count";
  write_text_file(folder_ / "compress/report-points.json", "{\"version\": 1, \"points\":");
  EXPECT_EQ(points(report()).size(), 3u);
}

TEST_F(ReportStage, IsTheSameForAnyNumberOfRanks) {
  train_.micro_batch = 2;
  share();
  const std::string one = comparable(report());
  for (const int ranks : {2, 3})
    test::on_thread_ranks(ranks, [&](Communicator& world) {
      if (world.rank() == 0) std::filesystem::remove(folder_ / "compress/report-points.json");
      world.barrier();
      const test::TemporaryFolder folder;
      test::OwnContext own;
      own.ctx.threads = 1;
      Model model(original_settings(folder.path()));
      StageInputs in = inputs_of(world, model, own.ctx);
      in.stop_requested = [] { return false; };
      Json found = find_stage("report").run(in).file;
      if (world.rank() > 0) return;
      found.set("base", Json::parse(one, "one").at("base"));  // the model lies in another folder
      found.set("corpus", Json::parse(one, "one").at("corpus"));
      EXPECT_EQ(comparable(found), one) << ranks;
    });
}

TEST_F(ReportStage, WithoutHeldOutDataTakesTheCalibrationRowsAndSaysSo) {
  share();
  has_eval_ = false;
  const Json found = report();
  EXPECT_EQ(found.at("corpus").at("rows").as_string(), "calibration rows of data.train");
  EXPECT_EQ(found.at("corpus").at("hash").as_string(), data_->hash());
  EXPECT_THAT(said_, testing::Contains(HasSubstr("there is no held-out data")));
  EXPECT_THAT(said_, testing::Contains(HasSubstr("perplexity")));
}

/// A report with all parts, of gates that were trained.
Json whole_report(const FoldPlan& plan) {
  const auto point = [](const char* name) {
    Json json = Json::object().set("name", name);
    for (const char* key : {"perplexity", "nll", "tokens", "layers_computed", "blocks_stored", "parameters_stored",
                            "parameters_computed", "bytes_disk", "bytes_resident", "peak_rss_bytes",
                            "kv_bytes_per_token", "prefill_tokens_per_second", "decode_tokens_per_second", "threads"})
      json.set(key, 1234);
    return json;
  };
  Json similarity = Json::array(), curve = Json::array(), theta = Json::array(), bi = Json::array();
  for (int i = 0; i < 7; ++i) {
    Json row = Json::array();
    for (int j = 0; j < 7; ++j) row.push_back(1 - 0.01 * std::abs(i - j));
    similarity.push_back(row);
  }
  for (int l = 0; l < 6; ++l) theta.push_back(0.1 * l), bi.push_back(0.01 * l);
  for (int record = 0; record < 400; ++record) curve.push_back(theta);
  Json shared = point("shared");
  shared.set("perplexity", Json()).set("nll", Json());
  return Json::object()
      .set("base", Json::object().set("path", "a <model>").set("layers", 6))
      .set("corpus", Json::object()
                         .set("file", "held_out.jsonl")
                         .set("rows", "data.eval")
                         .set("tokens", 1234)
                         .set("sequence_length", 12))
      .set("points", Json::array().push_back(point("original")).push_back(point("removed")).push_back(shared))
      .set("plan", fold_plan_json(plan))
      .set("bi", bi)
      .set("similarity", similarity)
      .set("gates", Json::object()
                        .set("steps", 3990)
                        .set("theta", theta)
                        .set("loss_original", 1.0)
                        .set("loss_soft", 1.1)
                        .set("loss_hard", Json())
                        .set("loss_bi", 1.3)
                        .set("theta_every_10_steps", curve))
      .set("commands", Json::array().push_back("trainer \"run & more\"/recipe.toml"));
}

TEST(ReportPage, IsWellFormedAndHasEveryPart) {
  FoldPlan plan = test::six_layers();
  plan.base.fingerprint = "9f31";
  const std::string page = report_page("a <run>", whole_report(plan));
  EXPECT_EQ(test::html_fault(page), "");
  const std::string text = test::html_text(page);
  for (const char* part :
       {"Points", "perplexity", "not finite", "1\u202f234", "block 1", "removed", "reads block 3",
        "stored for blocks 2, 3, 4", "influence 0.0300", "states 0 and 6: 0.9400", "block 5 at step 0: 0.500",
        "step 3990", "calibration rows of data.train", "trainer &quot;run &amp; more&quot;/recipe.toml"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("http"), std::string::npos) << "nothing from outside";
  EXPECT_LT(page.size(), 300'000u) << "columns of gates are thinned";
  plan.groups[1] = {.blocks = {2, 3, 4}, .parent = {}, .values = GroupValues::mean};
  plan.removed_halves = {{2, BlockHalf::mlp}, {3, BlockHalf::mlp}, {4, BlockHalf::mlp}};
  const std::string mean = test::html_text(report_page("run", whole_report(plan)));
  EXPECT_THAT(mean, HasSubstr("reads the mean of blocks 2, 3, 4, without its MLP"));
}

TEST(ReportPage, LinesTellTheFiguresOfEachPoint) {
  const auto lines = report_lines(whole_report(test::six_layers()));
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[0], "report: perplexities of 1234 tokens of held_out.jsonl (data.eval)");
  EXPECT_EQ(lines[1].size(), lines[2].size());
  EXPECT_EQ(lines[1].size(), lines[4].size());
  EXPECT_THAT(lines[2], HasSubstr("original"));
  EXPECT_THAT(lines[4], HasSubstr("not finite"));
}

}  // namespace
}  // namespace tessera
