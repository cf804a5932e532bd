// Every recipe of the repository runs, shortened by overrides.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "steplog/nats_engine.h"
#include "steplog/nats_server.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(test::source_dir() / "recipes"))
    if (entry.path().extension() == ".toml") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

class Recipe : public test::Workbench, public testing::WithParamInterface<std::string> {
 protected:
  static bool needs_server() { return GetParam() == "one_byte_loose"; }
};

/// A fault about a file outside the repository that this machine does not have.
std::string missing_file(const std::string& text) {
  const size_t end = text.find("\" does not exist");
  if (end == std::string::npos) return "";
  const std::string file = text.substr(text.rfind('"', end - 1) + 1, end - text.rfind('"', end - 1) - 1);
  const fs::path inside = fs::weakly_canonical(file).lexically_relative(fs::weakly_canonical(test::source_dir()));
  const bool fetched = *inside.begin() == "models" || *inside.begin() == ".cache";  // by scripts that the recipe names
  return fetched || *inside.begin() == ".." ? file : "";
}

std::string file_of(const std::string& recipe) {
  return (test::source_dir() / "recipes" / (recipe + ".toml")).string();
}

TEST_P(Recipe, IsCheckedAsItStands) {
  if (needs_server() && !has_nats()) GTEST_SKIP() << "this program was built without libnats";
  const test::Ended ended = test::run(trainer({file_of(GetParam()), "--check", "run.dir=run", "data.cache=cache"}), 60);
  if (const std::string file = missing_file(ended.err); ended.exit_code == 2 && !file.empty())
    GTEST_SKIP() << file << " is not there";
  EXPECT_EQ(ended.exit_code, 0) << ended.out << ended.err;
  EXPECT_EQ(ended.err, "");
  EXPECT_NE(ended.out.find("memory a rank"), std::string::npos) << ended.out;
  EXPECT_FALSE(fs::exists(*this / "run") || fs::exists(*this / "cache"));
}

TEST_P(Recipe, RunsShortened) {
  if (needs_server() && !(has_nats() && test::has_nats_server())) GTEST_SKIP() << "needs libnats and nats-server";
  std::unique_ptr<test::NatsServer> server;
  Words words = {file_of(GetParam()),
                 "train.steps=2",
                 "train.batch=2",
                 GetParam() == "one_byte_sst2" ? "train.sequence_length=160" : "train.sequence_length=64",
                 "optimizer.warmup_steps=0",
                 "evaluate.rows=2",
                 "data.max_documents=64",
                 "generate.limit=2",
                 "generate.max_new_tokens=4",
                 "fold.calibration_rows=4",
                 "fold.gate_steps=4",
                 "fold.gate_batch=2",
                 "run.dir=run",
                 "data.cache=cache"};
  if (needs_server()) {
    server = std::make_unique<test::NatsServer>(test::NatsServer::Nodes{.all = "a", .packers = "a"});
    const NatsSettings at = server->settings("a");
    words.insert(words.end(), {"spsa.node=a", "spsa.server=[\"" + at.servers[0] + "\"]",
                               "spsa.credentials=" + at.credentials.string(), "spsa.first_deadline=1"});
  }
  const test::Ended ended = test::run(trainer(words), 120);
  if (const std::string file = missing_file(ended.err); ended.exit_code == 2 && !file.empty())
    GTEST_SKIP() << file << " is not there";
  ASSERT_EQ(ended.exit_code, 0) << ended.out << ended.err;
  EXPECT_TRUE(fs::exists(*this / "run/metrics.jsonl") || fs::exists(*this / "run/samples.jsonl") || !ended.out.empty());
}

INSTANTIATE_TEST_SUITE_P(Repository, Recipe, testing::ValuesIn(recipe_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace tessera
