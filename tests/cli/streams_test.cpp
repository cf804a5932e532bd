// Where output goes when nobody reads it, or it cannot be written; files that may not grow;
// threads that cannot be started.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;

class Streams : public test::Workbench {
 protected:
  /// A bash script in which "$@" is the trainer with its arguments.
  test::Command shell(const std::string& script, const Words& arguments) const {
    test::Command command = trainer(arguments);
    command.arguments.insert(command.arguments.begin(), {"bash", "-c", "set -o pipefail; " + script, "bash"});
    return command;
  }
  test::Command without_reader(const Words& arguments) const {
    return shell("{ sleep 0.1; \"$@\"; } | true", arguments);  // the reader has gone when the first line comes
  }
  test::Command into_full_disk(const Words& arguments) const { return shell("\"$@\" > /dev/full", arguments); }

  /// Commands whose answer is what they print, and a trained run to ask about.
  std::vector<Words> questions() {
    expect_done(trainer({"mos.toml", "train.steps=2", "run.dir=run"}));
    expect_done(trainer({"spsa.toml", "train.steps=2", "run.dir=spsa"}));
    return {{"--explain", "all"},
            {"--list", "jobs"},
            {"--version"},
            {"--help"},
            {"log", "--help"},
            {"log", "spsa", "--json"},
            {"log", "spsa"},
            {"mos.toml", "--check"},
            {"mos.toml", "--check", "--json"},
            {"mos.toml", "--show-batch"},
            {"mos.toml", "train.steps=2", "run.dir=run"},  // a finished run tells its last line
            {"mos.toml", "run.dir=run", "job=evaluate"},
            {"mos.toml", "run.dir=run", "job=prepare"}};
  }
};

constexpr const char* kUnwritable = "standard output: cannot be written: No space left on device\n";

TEST_F(Streams, AReaderThatHasGoneIsNoFault) {
  expect_done(trainer({"mos.toml", "job=prepare"}));  // which --show-batch would tell of on stderr
  for (const Words& words : questions())
    EXPECT_THAT(expect_exit(0, without_reader(words)).err,
                testing::AnyOf("", "the adapter that the run trained: run/adapter\n"))
        << words.back();
}

TEST_F(Streams, AnAnswerThatCannotBeWrittenIsAFault) {
  for (const Words& words : questions())
    EXPECT_THAT(expect_exit(2, into_full_disk(words)).err, HasSubstr(kUnwritable)) << words.back();
}

TEST_F(Streams, AFaultKeepsItsOwnMessageAndExitCode) {
  EXPECT_THAT(expect_exit(2, into_full_disk({"mos.toml", "train.batch=0"})).err, HasSubstr("train.batch"));
}

TEST_F(Streams, ResultsAreInTheirFilesWhateverBecomesOfTheOutput) {
  expect_done(trainer({"mos.toml", "run.dir=straight"}));
  expect_done(trainer({"mos.toml", "run.dir=straight", "job=generate", "generate.limit=3"}));
  expect_exit(0, without_reader({"mos.toml", "run.dir=a"}));
  EXPECT_THAT(expect_exit(2, into_full_disk({"mos.toml", "run.dir=b"})).err,
              EndsWith(kUnwritable + std::string("  free some space, or choose another folder\n")));
  for (const std::string run : {"a", "b"}) {
    EXPECT_EQ(saved_bytes(run), saved_bytes("straight"));
    EXPECT_EQ(timeless_metrics(run), timeless_metrics("straight"));
  }
  expect_exit(0, without_reader({"mos.toml", "run.dir=a", "job=generate", "generate.limit=3"}));
  expect_exit(2, into_full_disk({"mos.toml", "run.dir=b", "job=generate", "generate.limit=3"}));
  for (const std::string run : {"a", "b"})
    EXPECT_EQ(test::read_file(*this / run / "samples.jsonl"), test::read_file(*this / "straight/samples.jsonl"));
}

TEST_F(Streams, PromptsOfTheRecipeAreAnsweredInTheFileFirst) {
  expect_done(trainer({"mos.toml", "train.steps=2", "run.dir=run"}));
  const Words words = {"mos.toml", "run.dir=run", "job=generate", "generate.prompts=[\"copy da =\", \"copy fa =\"]"};
  expect_exit(2, into_full_disk(words));
  EXPECT_EQ(test::occurrences(test::read_file(*this / "run/samples.jsonl"), "\n"), 2);
}

TEST_F(Streams, AFileThatMayNotGrowIsNamedAndLeavesNoTemporary) {
  expect_done(trainer({"full.toml", "train.steps=20", "run.dir=straight"}));
  const Words words = {"full.toml", "train.steps=20", "checkpoint.every=10", "run.dir=run"};
  const test::Ended ended = expect_exit(2, shell("ulimit -f 64; \"$@\"", words));
  EXPECT_THAT(ended.err, AllOf(HasSubstr("step-00000010.h5: cannot be written: File too large\n"),
                               HasSubstr("raise the limit of a file's size (ulimit -f)")));
  EXPECT_THAT(temporaries("run"), IsEmpty());
  expect_done(trainer(words));
  EXPECT_EQ(saved_bytes("run"), saved_bytes("straight"));
}

TEST_F(Streams, EveryFileThatMayNotGrowIsNamed) {
  // A limit for each size that some file of the run reaches first: never a signal, never a fault of ours.
  for (int kilobytes = 1; kilobytes <= 128; kilobytes *= 2) {
    fs::remove_all(*this / "run");
    for (const char* recipe : {"mos.toml", "spsa.toml"}) {
      const test::Ended ended = test::run(shell("ulimit -f " + std::to_string(kilobytes) + "; \"$@\"",
                                                {recipe, "run.dir=run", "data.cache=cache", "--quiet"}));
      EXPECT_TRUE(ended.exit_code == 0 || ended.exit_code == 2) << kilobytes << ": " << ended.exit_code << ended.err;
      if (ended.exit_code == 2) {
        EXPECT_THAT(ended.err, HasSubstr(": File too large\n")) << kilobytes;
      }
      for (const std::string folder : {"run", "cache"})
        if (fs::exists(*this / folder)) {
          EXPECT_THAT(temporaries(folder), IsEmpty());
        }
      fs::remove_all(*this / "run");
      fs::remove_all(*this / "cache");
    }
  }
}

TEST_F(Streams, ThreadsThatCannotBeStartedNameTheKey) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "address space is not limited under this sanitizer";
#endif
  const test::Ended ended = expect_exit(
      2, shell("ulimit -s 8192; ulimit -v 4000000; \"$@\"", {"mos.toml", "run.threads=1000", "run.dir=run"}));
  EXPECT_EQ(ended.err,
            "command line: 1000 threads (run.threads) cannot be started here\n"
            "  set run.threads to fewer, or raise the limit of processes or of memory (ulimit -u, ulimit -v)\n");
  expect_done(shell("ulimit -s 8192; ulimit -v 4000000; \"$@\"",
                    {"mos.toml", "run.threads=3", "train.steps=1", "run.dir=run"}));
}

TEST_F(Streams, ALogThatCannotBeWrittenSaysWhy) {
  fs::create_directories(*this / "run");
  fs::create_symlink("/dev/full", *this / "run/log.txt");
  EXPECT_EQ(expect_exit(2, trainer({"mos.toml", "run.dir=run"})).err,
            "run/log.txt: cannot be written: No space left on device\n  free some space, or choose another folder\n");
}

}  // namespace
}  // namespace tessera
