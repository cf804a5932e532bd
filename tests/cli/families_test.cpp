// Folders shaped like the models that people have go the whole way: training, a stop, going on, evaluation, generation,
// export, and training of what was exported. scripts/check_families compares the same with transformers and PEFT.

#include <gmock/gmock.h>

#include <random>

#include "cli/stops.h"
#include "io/json_file.h"
#include "support/families.h"
#include "support/folds.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

Json published() { return read_configuration(test::source_dir() / "tests/golden/published.json"); }

std::vector<std::string> published_names() {
  std::vector<std::string> names;
  const Json shapes = published();
  for (const auto& member : shapes.members()) names.push_back(member.first);
  return names;
}

std::string name_of(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
  return name;
}

/// Documents of 43 tokens, longer than the window and shorter than a row: four syllables that come again and again.
std::string refrains(int documents, uint32_t seed) {
  std::mt19937 random(seed);
  const std::string consonants = "bdfghklmnprstwz", vowels = "aeiu";
  std::string text;
  for (int d = 0; d < documents; ++d) {
    std::string refrain, words = "copy";
    for (int i = 0; i < 4; ++i)
      refrain += std::string(" ") + consonants[random() % consonants.size()] + vowels[random() % vowels.size()];
    for (int i = 0; i < 10; ++i) words += refrain;
    text += Json::object().set("text", words).dump() + "\n";
  }
  return text;
}

/// "published": the folder of a model with the published keys, reduced sizes and drawn weights, stored as published.
class FamilyRuns : public test::Stops, public testing::WithParamInterface<std::string> {
 protected:
  FamilyRuns() : shape_(published().at(GetParam())) {
    test::write_file(path() / "train.jsonl", refrains(100, 1));
    test::write_file(path() / "eval.jsonl", refrains(12, 2));
    fs::create_directories(path() / "drawn");
    test::write_file(path() / "drawn/config.json", reduced_config().dump(2));
    Model::Settings settings;
    settings.model.path = path() / "drawn";
    settings.model.init = "random";
    settings.max_position = 64;
    settings.train_base = true;
    Model model(settings);
    test::fill_all_normal(model.pool(), 7, 0.15);
    test::draw_norms_and_biases(model, 3);
    const test::OwnContext own;
    export_merged(path() / "published", model, test::source_dir() / "recipes/world/tokenizer", own.ctx);
  }
  Json reduced_config() const {
    Json config = shape_.at("published");
    for (const auto& [key, value] : shape_.at("reduced").members()) config.set(key, value);
    return config;
  }
  /// On the model, with rows longer than its window.
  static Words of(const std::string& method, const Words& more) {
    return joined({method + ".toml", "model.path=published", "model.init=pretrained", "model.dtype=f32",
                   "train.steps=12", "train.batch=8", "checkpoint.every=4", "optimizer.lr=1e-2"},
                  more);
  }
  double loss(const Words& words) const {
    const std::string out = expect_done(trainer(joined(words, {"job=evaluate"}))).out;
    return Json::parse(out.substr(out.find('{')), "evaluate").at("loss").as_number();
  }
  std::string continued(const Words& words, const std::string& run) const {
    expect_done(trainer(joined(words, {"job=generate", "generate.limit=3", "generate.max_new_tokens=24"})));
    return test::read_file(*this / run / "samples.jsonl");
  }
  const Json shape_;
};
INSTANTIATE_TEST_SUITE_P(Published, FamilyRuns, testing::ValuesIn(published_names()), name_of);

TEST_P(FamilyRuns, TrainStopAndGoOnToTheSameBits) {
  expect_done(trainer(of("mos", {"run.dir=whole"})));
  EXPECT_LT(losses("whole", "eval").back(), losses("whole", "eval").front() - 0.05);
  const test::Command again = trainer(of("mos", {"run.dir=run"}));
  stop(again, SIGTERM, [&] { return lines("run") >= 3; });
  expect_done(again);
  EXPECT_TRUE(saved_bytes("run") == saved_bytes("whole"));
  EXPECT_EQ(timeless_metrics("run"), timeless_metrics("whole"));
}

TEST_P(FamilyRuns, AreEvaluatedContinuedExportedAndTrainedOn) {
  expect_done(trainer(of("lora", {"export.merged=true", "run.dir=run"})));
  const Words adapted = of("lora", {"run.dir=run"}), merged = of("lora", {"model.path=run/model", "run.dir=on"});
  const Words alone = joined(merged, {"adapter.method=none"});
  EXPECT_EQ(read_configuration(*this / "run/model/config.json").dump(),
            reduced_config().set("torch_dtype", "float32").dump());
  const double trained = loss(adapted);
  EXPECT_EQ(trained, losses("run", "eval").back());
  EXPECT_LT(trained, losses("run", "eval").front() - 0.05);
  EXPECT_NEAR(loss(alone) / trained, 1, 1e-6);
  EXPECT_EQ(continued(adapted, "run"), continued(alone, "on"));

  expect_done(trainer(merged));
  EXPECT_NEAR(losses("on", "eval").front() / trained, 1, 1e-6);
  EXPECT_LT(losses("on", "eval").back(), trained);
}

/// What each way to train writes at last is a dense model in a folder that computes what was trained.
TEST_P(FamilyRuns, TrainEveryWayAndAreExportedDense) {
  const Words few = {"train.steps=3", "checkpoint.every=0"};
  const std::vector<std::pair<std::string, Words>> ways = {
      {"full", of("full", joined(few, {"optimizer.lr=1e-3"}))},
      {"spsa", of("spsa", few)},
      {"rps", of("rps", joined(few, {"model.init=random"}))},
      {"fold", of("lora", joined(few, {"job=compress", "fold.remove=0.2", "fold.gate_steps=4", "fold.gate_batch=2",
                                       "fold.calibration_rows=4", "fold.keep_head=1", "fold.report_tokens=1"}))}};
  for (const auto& [way, words] : ways) {
    const std::string dir = "run.dir=" + way;
    expect_done(trainer(joined(words, {dir})));
    const double trained = loss(joined(words, {dir}));
    if (way != "full") expect_done(trainer(joined(words, {dir, "job=export", "export.merged=true"})));
    const Words dense = {"full.toml", "model.path=" + way + "/model", "model.init=pretrained", "run.dir=dense"};
    EXPECT_NEAR(loss(dense) / trained, 1, 1e-6) << way;
  }
  const int64_t left = read_configuration(*this / "fold/model/config.json").at("num_hidden_layers").as_integer();
  EXPECT_LT(left, reduced_config().at("num_hidden_layers").as_integer());
}

TEST_P(FamilyRuns, ExportWhatConfigJsonSaid) {
  expect_done(trainer(of("lora", {"train.steps=1", "model.dtype=", "export.merged=true", "run.dir=run"})));
  EXPECT_EQ(read_configuration(*this / "run/model/config.json").dump(), reduced_config().dump());
}

TEST(Families, HaveAsManyParametersAtTheirPublishedSizesAsIsSaid) {
  const Json shapes = published();
  for (const auto& [name, shape] : shapes.members()) {
    const ModelConfig config = parse_model_config(shape.at("published"), name);
    int64_t parameters = 0;
    for (const WeightSpec& spec : weight_specs(config))
      if (spec.storage == spec.name) parameters += spec.shape.count();
    EXPECT_EQ(parameters, shape.at("parameters").as_integer()) << name;
  }
}

}  // namespace
}  // namespace tessera
