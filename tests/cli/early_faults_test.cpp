// What would fail late though it shows early: told before step 1, and by --check.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class EarlyFaults : public test::Workbench {
 protected:
  void expect_early(const Words& words, const std::string& text) {
    for (const bool is_check : {true, false}) {
      Words all = words;
      if (is_check) all.push_back("--check");
      const test::Ended ended = expect_exit(2, trainer(all));
      EXPECT_THAT(ended.err, HasSubstr(text));
      EXPECT_FALSE(fs::is_regular_file(*this / "run/metrics.jsonl"));
    }
  }
};

TEST_F(EarlyFaults, OfWhatStandsWhereARunWillWrite) {
  fs::create_directories(*this / "run/report.html");
  expect_early({"mos.toml", "run.dir=run"}, "run/report.html: is a folder, and a file belongs there");
  fs::remove(*this / "run/report.html");
  for (const char* name : {"log.txt", "report.html", "metrics.jsonl"}) {  // opening a pipe waits for its reader
    ASSERT_EQ(mkfifo((*this / "run" / name).c_str(), 0600), 0);
    expect_early({"mos.toml", "run.dir=run"}, std::string(name) + ": is a pipe or a socket, and a file belongs there");
    fs::remove(*this / "run" / name);
  }
  for (const std::string name : {"adapter", "model", "peft"}) {
    test::write_file(*this / "run" / name, "mine");
    expect_early({"mos.toml", "run.dir=run", "export.merged=true", "export.peft=true"},
                 "run/" + name + ": is a file, and a folder belongs there");
    fs::remove(*this / "run" / name);
  }
  test::write_file(*this / "run/model", "mine");
  expect_early({"full.toml", "run.dir=run"}, "run/model: is a file, and a folder belongs there");
  expect_done(trainer({"mos.toml", "run.dir=run", "train.steps=1"}));  // writes none
  fs::remove_all(*this / "run");
  fs::create_directories(*this / "run");
  fs::create_symlink(*this / "nowhere", *this / "run/checkpoints");
  expect_early({"mos.toml", "run.dir=run"}, "run/checkpoints: is a link to nowhere");
  fs::create_directories(*this / "nowhere");  // the cure that is told
  expect_done(trainer({"mos.toml", "run.dir=run", "train.steps=1"}));
  EXPECT_TRUE(fs::exists(*this / "nowhere/step-00000001.h5"));
}

TEST_F(EarlyFaults, OfAFolderThatCannotBeMade) {
  test::write_file(*this / "plain", "");
  expect_early({"mos.toml", "run.dir=plain/run"},
               "this run folder cannot be made or written: \"" + (*this / "plain").string() + "\" is a file");
}

TEST_F(EarlyFaults, OfNames) {
  expect_early({"mos.toml", "run.dir=run", "job=generate", "generate.output=" + std::string(256, 'x') + ".jsonl"},
               "generate.output is a name of 262 bytes");
  expect_done(trainer({"mos.toml", "run.dir=run", "train.steps=1"}));
  const std::string longest = std::string(249, 'x') + ".jsonl";
  expect_done(trainer({"mos.toml", "run.dir=run", "job=generate", "generate.limit=1", "generate.max_new_tokens=2",
                       "generate.output=" + longest}));
  EXPECT_TRUE(fs::exists(*this / "run" / longest));
}

TEST_F(EarlyFaults, OfNamesThatAreNotUtf8) {
  const std::string odd = "odd\xff";
  expect_early({"mos.toml", "run.dir=" + odd}, "run.dir holds bytes that are not UTF-8");
  fs::copy_file(*this / "train.jsonl", *this / (odd + ".jsonl"));
  expect_early({"mos.toml", "run.dir=run", "data.train=" + odd + ".jsonl"},
               "data.train holds bytes that are not UTF-8");
  fs::create_directory(*this / odd);
  for (const char* part : {"base", "mos.toml", "train.jsonl", "eval.jsonl"})
    fs::copy(*this / part, *this / odd / part, fs::copy_options::recursive);
  auto inside = trainer({"mos.toml", "train.steps=1"});
  inside.folder = *this / odd;
  EXPECT_THAT(expect_exit(2, inside).err, HasSubstr("the path of the run's folder holds bytes that are not UTF-8"));
  EXPECT_FALSE(fs::exists(*this / odd / "runs"));
  fs::create_directory_symlink(*this / odd, *this / "even");  // the cure that is told
  expect_done(
      trainer({(*this / "even/mos.toml").string(), "run.dir=" + (*this / "even/run").string(), "train.steps=1"}));
}

TEST_F(EarlyFaults, ABaseThatIsWrittenToDuringARunSealsNothing) {
  expect_done(trainer({"full.toml", "run.dir=run", "train.steps=1"}));
  fs::copy(*this / "run/model", *this / "base", fs::copy_options::overwrite_existing | fs::copy_options::recursive);
  const Words words = {"mos.toml",           "model.init=pretrained", "run.dir=adapted", "train.steps=20000",
                       "checkpoint.every=5", "checkpoint.keep=9999",  "log.every=10000"};
  test::Process process(trainer(words));
  ASSERT_TRUE(test::wait_until([&] { return !process.running() || !checkpoints("adapted").empty(); })) << process.out();
  ASSERT_TRUE(process.running()) << process.wait().err;
  const fs::path weights = *this / "base/model.safetensors";
  fs::last_write_time(weights, fs::file_time_type::clock::now());  // the same bytes at another time: nothing happens
  const size_t before = checkpoints("adapted").size();
  ASSERT_TRUE(test::wait_until([&] { return checkpoints("adapted").size() > before + 3; }));
  const auto size = static_cast<std::streamoff>(fs::file_size(weights));
  std::fstream file(weights, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(size - 400);
  file.write(std::string(100, '\x3c').data(), 100);
  file.close();
  const test::Ended ended = process.wait(60);
  EXPECT_EQ(ended.exit_code, 2) << ended.out << ended.err;
  EXPECT_THAT(ended.err, HasSubstr("base/model.safetensors: was written to while the run read its weights from it"));
}

}  // namespace
}  // namespace tessera
