// job = "generate" under 1 to 4 ranks: the same answers, whoever computed them.

#include <gmock/gmock.h>

#include <csignal>
#include <set>
#include <sstream>

#include "cli/request_batches.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class GenerationOverRanks : public test::Workbench {
 protected:
  void SetUp() override { TESSERA_NEEDS_MPI(); }

  void write(const std::string& name, const std::string& text) const { test::write_file(*this / name, text); }
  Words batch(const Words& more) const {
    return joined({"full.toml", "job=generate", "generate.prompts_file=batch.jsonl"}, more);
  }
  std::string samples(const std::string& run) const { return test::read_file(*this / run / "samples.jsonl"); }
  Json report(const std::string& run) const {
    return Json::parse(test::read_file(*this / run / "generate_report.json"), run);
  }
  int64_t journal_bytes(const std::string& run) const {
    int64_t bytes = 0;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(*this / run / "journal", ignored))
      if (const auto size = fs::file_size(entry, ignored); !ignored) bytes += static_cast<int64_t>(size);
    return bytes;
  }
  void expect_same_under_ranks(const Words& words) const {
    expect_done(trainer(joined(words, {"run.dir=alone"})));
    for (const int count : {1, 2, 3}) {
      const std::string run = fmt::format("ranks-{}", count);
      expect_done(ranks(count, joined(words, {"run.dir=" + run})));
      EXPECT_EQ(samples(run), samples("alone")) << count << " ranks";
      fs::remove_all(*this / run);
    }
    fs::remove_all(*this / "alone");
  }
};

TEST_F(GenerationOverRanks, HasTheSameBytesForAnyNumberOfThem) {
  write("batch.jsonl", test::batch_file(60));
  expect_same_under_ranks(batch({"generate.step_tokens=16"}));
  write("batch.jsonl", "copy da di =\ncopy da do =\nfirst da =\n");
  expect_same_under_ranks(batch({"generate.max_new_tokens=6", "generate.temperature=1"}));
}

// The prompts of one body are answered by one line, whose choices are numbered on.
TEST_F(GenerationOverRanks, KeepsTheLinesOfOpenAiTogether) {
  std::string text;
  for (int i = 0; i < 9; ++i)
    text += fmt::format(
        R"({{"custom_id": "r{}", "method": "POST", "url": "/v1/completions", "body": {{"model": "base", )"
        R"("prompt": ["copy da di =", "first do = {}", "copy mi =", "vu"], "max_tokens": 5, "temperature": 1, "n": 2}}}})"
        "\n",
        i, i % 3 == 0 ? "da" : "do");
  write("batch.jsonl", text);
  expect_same_under_ranks(batch({}));
}

TEST_F(GenerationOverRanks, ComputesAPrefixOnceWhereItsPromptsAreOfOneRankAndSaysWhatAllDid) {
  write("batch.jsonl", test::batch_file(60));
  expect_done(trainer(batch({"run.dir=alone"})));
  expect_done(ranks(3, batch({"run.dir=run"})));
  const Json alone = report("alone"), together = report("run");
  for (const char* count : {"logical", "generated", "scored"})
    EXPECT_EQ(together.at("tokens").at(count).as_integer(), alone.at("tokens").at(count).as_integer()) << count;
  EXPECT_EQ(together.at("requests").as_integer(), 60);
  EXPECT_EQ(together.at("ranks").as_integer(), 3);
  const int64_t computed = together.at("tokens").at("computed").as_integer();
  EXPECT_THAT(
      expect_done(ranks(3, batch({"run.dir=run", "--check"}))).out,
      HasSubstr(fmt::format("3 ranks share the requests, and compute {} tokens of prompts together\n", computed)));
  // Ranks may have to compute what another one has, but not more often than there are ranks.
  EXPECT_GE(together.at("tokens").at("computed").as_integer(), alone.at("tokens").at("computed").as_integer());
  EXPECT_LT(together.at("tokens").at("computed").as_integer(), 3 * alone.at("tokens").at("computed").as_integer());
}

TEST_F(GenerationOverRanks, FollowsTheAnswersOfAll) {
  write("batch.jsonl", test::batch_file(40));
  expect_done(ranks(3, batch({"run.dir=run", "generate.follow=follow.jsonl"})));
  std::set<int64_t> followed;
  std::istringstream lines(test::read_file(*this / "run/follow.jsonl"));
  for (std::string line; std::getline(lines, line);)
    EXPECT_TRUE(followed.insert(Json::parse(line, "follow.jsonl").at("index").as_integer()).second);
  EXPECT_EQ(followed.size(), 40);
}

TEST_F(GenerationOverRanks, AnswersPromptsOfTheRecipeAndFewerThanThereAreRanks) {
  const Words words = {"full.toml", "job=generate", "generate.prompts=[\"copy da =\", \"copy di =\"]",
                       "generate.max_new_tokens=4"};
  const std::string out = expect_done(trainer(joined(words, {"run.dir=run"}))).out;
  EXPECT_EQ(expect_done(ranks(4, joined(words, {"run.dir=run"}))).out, out);
  write("batch.jsonl", test::batch_file(2));
  expect_done(trainer(batch({"run.dir=alone"})));
  expect_done(ranks(4, batch({"run.dir=few"})));
  EXPECT_EQ(samples("few"), samples("alone"));
  // Nothing is left to do for anybody.
  EXPECT_THAT(expect_done(ranks(3, batch({"run.dir=few"}))).err, HasSubstr("all 2 requests are answered"));
}

TEST_F(GenerationOverRanks, GoesOnAfterKillsWithOtherNumbersOfThem) {
  write("batch.jsonl", test::batch_file(400));
  expect_done(trainer(batch({"run.dir=whole"})));
  int kills = 0;
  std::set<std::string> logs;
  for (int start = 0; start < 20; ++start) {
    const int count = start % 3 == 0 ? 3 : start % 3;
    const Words words = batch({"run.dir=cut", "generate.step_tokens=16", "generate.max_sequences=1"});
    test::Process process(ranks(count, words));
    const int64_t before = journal_bytes("cut");
    test::wait_until([&] { return !process.running() || journal_bytes("cut") > before; }, 60);
    test::sleep_seconds(0.002 * (start % 3));
    if (!process.running()) {
      EXPECT_EQ(process.wait().exit_code, 0);
      break;
    }
    const auto pids = process.children();
    // One rank, whose end is that of all, or the launcher.
    if (pids.empty() || start % 4 == 3)
      process.send(SIGKILL);
    else
      kill(pids[static_cast<size_t>(start) % pids.size()], SIGKILL);
    process.wait();
    ++kills;
    for (const auto& entry : fs::directory_iterator(*this / "cut/journal")) logs.insert(entry.path().filename());
  }
  std::printf("%d kills\n", kills);
  EXPECT_GT(kills, 5);
  EXPECT_GT(logs.size(), 1u) << "no rank but the first has kept anything";
  expect_done(ranks(2, batch({"run.dir=cut"})));
  EXPECT_EQ(samples("cut"), samples("whole"));
  EXPECT_TRUE(temporaries("cut").empty());
  EXPECT_FALSE(fs::exists(*this / "cut/journal/1.log"));
}

TEST_F(GenerationOverRanks, LeavesTogetherWhenOneIsAskedAndSaysHowMuchIsThere) {
  write("batch.jsonl", test::batch_file(400));
  for (const size_t asked : {0, 1, 2}) {
    const std::string run = fmt::format("run-{}", asked);
    test::Process job(ranks(3, batch({"run.dir=" + run, "generate.step_tokens=16", "generate.max_sequences=2"})));
    const fs::path log = *this / run / "journal/0.log";
    ASSERT_TRUE(test::wait_until([&] { return fs::exists(log) && fs::file_size(log) > 3000; }));
    const auto pids = job.children();
    ASSERT_EQ(pids.size(), 3u);
    kill(pids[asked], SIGUSR1);
    const test::Ended ended = job.wait(60);
    EXPECT_EQ(ended.exit_code, 130) << ended.err;
    EXPECT_THAT(ended.err, testing::ContainsRegex("stopped while generating: [0-9]+ of 400 requests are answered; "
                                                  "the same command goes on\n"));
    EXPECT_FALSE(fs::exists(*this / run / "samples.jsonl"));
  }
  expect_done(trainer(batch({"run.dir=whole"})));
  expect_done(ranks(3, batch({"run.dir=run-1"})));
  EXPECT_EQ(samples("run-1"), samples("whole"));
}

TEST_F(GenerationOverRanks, RefusesRanksThatDoNotSeeTheFolderOrHaveOtherRequests) {
  write("batch.jsonl", test::batch_file(12));
  fs::create_directories(*this / "here");
  fs::create_directories(*this / "there");
  const auto words = [&](const std::string& file, const std::string& run) {
    return Words{(*this / "full.toml").string(), "job=generate", "data.cache=" + (*this / "cache").string(),
                 "generate.prompts_file=" + file, "run.dir=" + run};
  };
  const Words own = words((*this / "batch.jsonl").string(), "/proc/self/cwd/run");
  const test::Ended apart = expect_exit(2, ranks_with({own, own}, {"here", "there"}));
  EXPECT_EQ(test::occurrences(apart.err, "rank 1 does not see the folder that rank 0 writes into"), 1) << apart.err;
  write("here/batch.jsonl", test::batch_file(12));
  write("there/batch.jsonl", test::batch_file(13));
  const Words other = words("/proc/self/cwd/batch.jsonl", (*this / "run").string());
  const test::Ended differ = expect_exit(2, ranks_with({other, other}, {"here", "there"}));
  EXPECT_EQ(test::occurrences(differ.err, "the ranks differ in the requests"), 1) << differ.err;
  EXPECT_FALSE(fs::exists(*this / "run/journal"));
}

TEST_F(GenerationOverRanks, SaysAFaultOfAllOnce) {
  write("batch.jsonl", R"({"custom_id": "long", "prompt": "copy da di =", "max_tokens": 3000})"
                       "\n" +
                           test::batch_file(6));
  const test::Ended ended = expect_exit(2, ranks(3, batch({"run.dir=run", "generate.memory_gib=0.0001"})));
  EXPECT_EQ(test::occurrences(ended.err, "request 1 alone needs"), 1) << ended.err;
  write("batch.jsonl", "{\"custom_id\": 3}\n");
  const test::Ended faulty = expect_exit(2, ranks(3, batch({"run.dir=run"})));
  EXPECT_EQ(test::occurrences(faulty.err, "batch.jsonl:1"), 1) << faulty.err;
}

}  // namespace
}  // namespace tessera
