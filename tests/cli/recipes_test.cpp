// Every recipe of the repository runs, shortened by overrides.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

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

class Recipe : public test::Workbench, public testing::WithParamInterface<std::string> {};

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
  const test::Ended ended = test::run(trainer({file_of(GetParam()), "--check", "run.dir=run", "data.cache=cache"}), 60);
  if (const std::string file = missing_file(ended.err); ended.exit_code == 2 && !file.empty())
    GTEST_SKIP() << file << " is not there";
  EXPECT_EQ(ended.exit_code, 0) << ended.out << ended.err;
  EXPECT_EQ(ended.err, "");
  EXPECT_NE(ended.out.find("memory a rank"), std::string::npos) << ended.out;
  EXPECT_FALSE(fs::exists(*this / "run") || fs::exists(*this / "cache"));
}

TEST_P(Recipe, RunsShortened) {
  const Words words = {file_of(GetParam()),
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
