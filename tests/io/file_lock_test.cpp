#include "io/file_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "support/error_text.h"
#include "support/paths.h"

namespace tessera {
namespace {

using namespace std::chrono_literals;
using test::error_text;

template <int kError> int failing(int, int) {
  errno = kError;
  return -1;
}

class Lock : public testing::Test {
 protected:
  test::TemporaryFolder folder_;
  FileDescriptor file_ = FileDescriptor::open_or_create(folder_ / ".lock");
};

TEST_F(Lock, IsHeldByOneAtATime) {
  const FileDescriptor again = FileDescriptor::open_or_create(folder_ / ".lock");
  {
    const auto lock = FileLock::take(file_, 0ms);
    ASSERT_TRUE(lock);
    EXPECT_EQ(lock->notice(), "");
    EXPECT_FALSE(FileLock::take(again, 1ms));
  }
  EXPECT_TRUE(FileLock::take(again, 0ms));
}

TEST_F(Lock, WhereThereAreNoLocksTheRunGoesOnAndIsToldOnce) {
  int told = 0;
  for (const FileLock::Flock call : {failing<ENOSYS>, failing<EOPNOTSUPP>, failing<ENOLCK>}) {
    const auto lock = FileLock::take(file_, 0ms, call);
    ASSERT_TRUE(lock);
    const std::string notice = lock->notice();
    if (notice.empty()) continue;
    ++told;
    EXPECT_THAT(notice, testing::StartsWith(folder_.path().string() + ": this file system has no locks"));
  }
  EXPECT_EQ(told, 1);
}

TEST_F(Lock, OnlyWhatWouldBlockMeansBusy) {
  EXPECT_FALSE(FileLock::take(file_, 1ms, failing<EWOULDBLOCK>));
  EXPECT_EQ(error_text([&] { FileLock::take(file_, 1ms, failing<EIO>); }),
            (folder_ / ".lock").string() + ": cannot be locked: Input/output error");
}

}  // namespace
}  // namespace tessera
