// A file system without locks: every job goes on and says once that nothing keeps a second process out.

#include <gtest/gtest.h>

#include <cerrno>

#include "support/workbench.h"

namespace tessera {
namespace {

class Locks : public test::Workbench {
 protected:
  void expect_told_once(const Words& words, int error) {
    test::Command command = trainer(words);
    command.flock_error = error;
    const test::Ended ended = expect_done(command);
    EXPECT_EQ(test::occurrences(ended.out + ended.err, ": this file system has no locks (flock)"), 1)
        << words[0] << " " << words[1] << "\n"
        << ended.out << ended.err;
  }
};

TEST_F(Locks, ThatAreMissingAreToldOnceByEveryJob) {
  expect_told_once({"lora.toml", "train.steps=1", "run.dir=run"}, ENOSYS);
  expect_told_once({"spsa.toml", "train.steps=1", "run.dir=spsa"}, EOPNOTSUPP);
  expect_told_once({"lora.toml", "job=export", "run.dir=run"}, ENOLCK);
  expect_told_once({"lora.toml", "job=generate", "run.dir=run", "generate.limit=1", "generate.max_new_tokens=1"},
                   ENOSYS);
  expect_told_once({"spsa.toml", "job=replay", "run.dir=spsa"}, EOPNOTSUPP);
  test::Command quiet = trainer({"lora.toml", "job=export", "run.dir=run", "--quiet"});
  quiet.flock_error = ENOLCK;
  EXPECT_EQ(expect_done(quiet).err, "");
}

TEST_F(Locks, ThatFailOtherwiseKeepTheRunFromStarting) {
  test::Command command = trainer({"lora.toml", "train.steps=1", "run.dir=run"});
  command.flock_error = EIO;
  EXPECT_NE(expect_exit(2, command).err.find("run/.lock: cannot be locked: Input/output error"), std::string::npos);
}

}  // namespace
}  // namespace tessera
