// What a training needs of the machine, and the share that is told: formulas by hand, and when nothing is measured.

#include "train/machine_share.h"

#include <gmock/gmock.h>

#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "kernels/table.h"
#include "support/sanitizer.h"
#include "support/thread_ranks.h"
#include "train/estimator_training.h"
#include "train/row_work.h"
#include "train/training.h"

namespace tessera {
namespace {

using namespace test;

class Share : public Training {
 protected:
  std::unique_ptr<Model> make_model(const std::string& method, std::vector<std::string> freeze = {}) {
    Model::Settings settings = tiny_settings(folder_.path(), config_of_model_);
    settings.adapter.method = method;
    settings.adapter.rank = 2;
    settings.train_base = method == "none";
    settings.freeze = std::move(freeze);
    return std::make_unique<Model>(settings);
  }
  const TinyConfig config_of_model_;
  // Elements of a layer's linears by what they do, and what attention multiplies for a key.
  const double d_ = 16, q_ = 16, kv_ = 8, i_ = 20, v_ = 23, layers_ = 3, attention_ = 4 * q_;
  const double qkv_ = d_ * (q_ + 2 * kv_), layer_ = qkv_ + q_ * d_ + 3 * d_ * i_;
  // Rows of one document of 12 tokens, of which the first is not predicted.
  const double n_ = 12, keys_ = 6.5, scored_ = 11;
};

TEST_F(Share, OfAllWeightsIsSixTimesTheParameters) {
  const RowWork work = row_work(*make_model("none"), data_);
  const double forward = n_ * layers_ * (2 * layer_ + attention_ * keys_) + scored_ * 2 * v_ * d_;
  EXPECT_DOUBLE_EQ(work.forward, forward);
  EXPECT_DOUBLE_EQ(work.backward, n_ * layers_ * (4 * layer_ + 2.5 * attention_ * keys_) + scored_ * 4 * v_ * d_);
}

TEST_F(Share, OfAnAdapterLeavesOutWhatNobodyWants) {
  const RowWork work = row_work(*make_model("lora"), data_);
  // in + out of a layer's linears
  const double ends = (d_ + q_) + 2 * (d_ + kv_) + (q_ + d_) + 3 * (d_ + i_);
  EXPECT_DOUBLE_EQ(work.forward, n_ * layers_ * (2 * layer_ + 4 * ends + attention_ * keys_) + scored_ * 2 * v_ * d_);
  // The input's gradient of each linear and of the frozen head, but not in front of the first block; of each low-rank
  // product both gradients.
  const double backward = n_ * layers_ * (2 * layer_ + 8 * ends + 2.5 * attention_ * keys_) + scored_ * 2 * v_ * d_;
  EXPECT_DOUBLE_EQ(work.backward, backward - n_ * (2 * qkv_ + 4 * 3 * d_));
}

TEST_F(Share, EndsAtTheFirstLayerThatIsTrained) {
  const RowWork work = row_work(
      *make_model("none", {"model[.]embed_tokens[.].*", "model[.]layers[.][01][.].*", "model[.]layers[.]2[.]input.*"}),
      data_);
  EXPECT_DOUBLE_EQ(work.backward, n_ * (4 * layer_ - 2 * qkv_ + 2.5 * attention_ * keys_) + scored_ * 4 * v_ * d_);
}

TEST_F(Share, IsMeasuredOnceWhereThatIsLittleOfTheRun) {
  const auto model = make_model("none");
  const TrainerInputs in = inputs(*model);
  MachineShare short_run(in), long_run(in);
  EXPECT_EQ(short_run.look(1, 24), "");
  EXPECT_EQ(short_run.look(1, 1000), "") << "decided behind the first step";
  EXPECT_FALSE(short_run.of(4, 1));
  EXPECT_THAT(long_run.look(1, 26),
              testing::MatchesRegex("limit: .* GFLOP/s of matrix products on 1 ranks x 2 threads, .*"));
  EXPECT_EQ(long_run.look(1, 25), "");
  const RowWork work = row_work(*model, data_);
  ASSERT_GT(long_run.limit(), 1e8);
  EXPECT_DOUBLE_EQ(*long_run.of(4, 0.5), 8 * (work.forward + work.backward) / long_run.limit());
  EXPECT_EQ(world_->traffic().broadcast.calls, 0);
}

TEST_F(Share, IsNotToldWhereItsMemoryCannotBeHad) {
  if (is_address_sanitized()) GTEST_SKIP() << "the sanitizer itself needs address space";
  const auto model = make_model("none");
  Arena scratch(1 << 20);
  const Context ctx{.device = {}, .stream = {}, .kernels = kernels_for({}), .scratch = scratch, .threads = 1};
  const TrainerInputs mine = inputs(*model);
  const TrainerInputs in{.config = mine.config,
                         .model = mine.model,
                         .data = mine.data,
                         .world = mine.world,
                         .ctx = ctx,
                         .report = mine.report};
  MachineShare share(in);
  std::ifstream statm("/proc/self/statm");
  rlim_t pages = 0;
  statm >> pages;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  const rlimit tight{pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (4 << 20), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &tight), 0);
  const std::string said = share.look(1, 1000);
  ASSERT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_EQ(said, "") << "a figure is not worth a run";
  EXPECT_FALSE(share.of(4, 1));
}

TEST_F(Share, IsOfAllRanksWhateverTheirClocksSay) {
  const auto model = make_model("none");
  std::array<std::string, 2> said;
  std::array<double, 2> limits{};
  on_thread_ranks(2, [&](Communicator& world) {
    const OwnContext own;
    const TrainerInputs mine = inputs(*model);
    const TrainerInputs in{.config = mine.config,
                           .model = mine.model,
                           .data = mine.data,
                           .world = world,
                           .ctx = own.ctx,
                           .report = mine.report};
    MachineShare share(in);
    const auto rank = static_cast<size_t>(world.rank());
    said[rank] = share.look(rank == 0 ? 1 : 0.1, 26);
    limits[rank] = share.limit();
  });
  EXPECT_THAT(said[1], testing::HasSubstr("on 2 ranks x 2 threads"));
  EXPECT_EQ(said[0], said[1]);
  EXPECT_EQ(limits[0], limits[1]);
}

TEST(Passes, AreThoseThatAStepTakesWithARow) {
  const auto passes = [](const std::string& estimator, const std::string& toml) {
    const EstimatorSections sections(estimator, "[train]\nbatch = 4\nsequence_length = 12\nsteps = 4\n" + toml);
    const Estimator::Passes found = estimator_of(sections.trainer).passes();
    return std::pair{found.forward, found.backward};
  };
  EXPECT_EQ(passes("backprop", ""), std::pair(1.0, 1.0));
  EXPECT_EQ(passes("spsa", "[spsa]\nprobes = 5\n"), std::pair(2.0, 0.0));
  EXPECT_EQ(passes("spsa", "[spsa]\nprobes = 5\nsides = \"one\"\n"), std::pair(6.0, 0.0));
  EXPECT_EQ(passes("spsa", "[spsa]\ntransport = \"file\"\nmachine = 0\nmachines = 2\nshared = \"votes\"\n"),
            std::pair(0.0, 0.0))
      << "of other machines nothing is known here";
}

TEST_F(Share, StandsInTheMetricsOfALongRun) {
  const auto model = make_model("none");
  config_.train.steps = 1'000'000;
  config_.log.every = 1;
  const RunFolder folder(folder_.path() / "run", "auto");
  Reporter report(&folder, Progress::none);
  int asked = 0;
  run_training({.config = config_,
                .model = *model,
                .data = data_,
                .world = *world_,
                .ctx = own_.ctx,
                .report = report,
                .folder = &folder,
                .stop_requested = [&] { return ++asked == 3; }});
  std::istringstream lines(read_file(folder / "metrics.jsonl"));
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const Json metric = Json::parse(line, "metrics");
    EXPECT_GT(metric.at("machine_share").as_number(), 0);
    EXPECT_LT(metric.at("machine_share").as_number(), 1.5);
  }
  EXPECT_EQ(count, 3);
  EXPECT_THAT(read_file(folder / "log.txt"), testing::ContainsRegex("tokens/s, [0-9]+ % of the machine  "));
}

}  // namespace
}  // namespace tessera
