#include "io/links.h"

#include <gtest/gtest.h>

#include "support/error_text.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::error_text;

TEST(Links, ThatLeadNowhereSayWhere) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "file", "x");
  fs::create_symlink("file", folder / "good");
  fs::create_symlink("good", folder / "twice");
  fs::create_symlink("../gone", folder / "dangling");
  fs::create_symlink("loop", folder / "loop");
  for (const char* name : {"file", "good", "twice", "nothing"})
    EXPECT_EQ(error_text([&] { require_sound_link(folder / name); }), test::kNothingThrown) << name;
  const std::string mend = "\n  mend the link, or copy the folder with what its links lead to (cp -rL)";
  EXPECT_EQ(error_text([&] { require_sound_link(folder / "dangling"); }),
            (folder / "dangling").string() + ": is a link to \"../gone\", which is not there" + mend);
  EXPECT_EQ(error_text([&] { require_sound_link(folder / "loop"); }),
            (folder / "loop").string() +
                ": is a link to \"loop\", which cannot be followed: Too many levels of symbolic links" + mend);
}

TEST(Links, OfACacheAreMendedByADownload) {
  const test::TemporaryFolder folder;
  const fs::path snapshot = folder / "models--org--name" / "snapshots" / "abc";
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/4d7a", snapshot / "config.json");
  EXPECT_EQ(error_text([&] { require_sound_link(snapshot / "config.json"); }),
            (snapshot / "config.json").string() +
                ": is a link to \"../../blobs/4d7a\", which is not there\n"
                "  the cache has lost what it kept of the model: hf download org/name");
}

}  // namespace
}  // namespace tessera
