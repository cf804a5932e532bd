#include "io/links.h"

#include <gtest/gtest.h>

#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

TEST(Links, ThatLeadNowhereSayWhere) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "file", "x");
  fs::create_symlink("file", folder / "good");
  fs::create_symlink("good", folder / "twice");
  fs::create_symlink("../gone", folder / "dangling");
  fs::create_symlink("loop", folder / "loop");
  for (const char* name : {"file", "good", "twice", "nothing"}) EXPECT_EQ(fault_of_link(folder / name), "") << name;
  EXPECT_EQ(fault_of_link(folder / "dangling"), "is a link to \"../gone\", which is not there");
  EXPECT_EQ(fault_of_link(folder / "loop"),
            "is a link to \"loop\", which cannot be followed: Too many levels of symbolic links");
}

}  // namespace
}  // namespace tessera
