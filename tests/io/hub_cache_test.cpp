// Models in the cache of Hugging Face's programs: where it lies, what it looks like inside.

#include "io/hub_cache.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

#include "io/files.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// An environment variable for as long as this lives.
class Variable {
 public:
  Variable(const char* name, const std::optional<std::string>& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    set(value);
  }
  ~Variable() { set(before_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  void set(const std::optional<std::string>& value) {
    if (value)
      setenv(name_, value->c_str(), 1);
    else
      unsetenv(name_);
  }
  const char* name_;
  std::optional<std::string> before_;
};

TEST(HubCache, LiesWhereTheHubsOwnProgramsPutIt) {
  const Variable home("HOME", "/home/a"), none("HF_HUB_CACHE", std::nullopt), no_home("HF_HOME", std::nullopt),
      no_xdg("XDG_CACHE_HOME", std::nullopt), no_old("HUGGINGFACE_HUB_CACHE", std::nullopt);
  EXPECT_EQ(hub_cache(), "/home/a/.cache/huggingface/hub");
  const Variable xdg("XDG_CACHE_HOME", "/x");
  EXPECT_EQ(hub_cache(), "/x/huggingface/hub");
  const Variable hf("HF_HOME", "/hf");
  EXPECT_EQ(hub_cache(), "/hf/hub");
  const Variable cache("HF_HUB_CACHE", "/c");
  EXPECT_EQ(hub_cache(), "/c");
}

TEST(HubCache, TakesTheSnapshotThatMainNames) {
  const test::TemporaryFolder folder;
  const Variable cache("HF_HUB_CACHE", folder.path().string());
  const fs::path model = folder / "models--org--a-name.1";
  EXPECT_EQ(cached_model("org/a-name.1"), "");
  create_folder(model / "snapshots" / "aaa");
  EXPECT_EQ(cached_model("org/a-name.1"), model / "snapshots" / "aaa") << "the only one";
  create_folder(model / "snapshots" / "bbb");
  EXPECT_EQ(cached_model("org/a-name.1"), "") << "one of two";
  create_folder(model / "refs");
  write_text_file(model / "refs" / "main", "bbb\n");
  EXPECT_EQ(cached_model("org/a-name.1"), model / "snapshots" / "bbb");
  write_text_file(model / "refs" / "main", "../../..");
  EXPECT_EQ(cached_model("org/a-name.1"), "") << "no name of a snapshot";
}

TEST(HubCache, TakesTheHomeFolderForATilde) {
  const Variable home("HOME", "/home/a"), none("HF_HUB_CACHE", std::nullopt), hf("HF_HOME", "~/hf"),
      old("HUGGINGFACE_HUB_CACHE", std::nullopt);
  EXPECT_EQ(hub_cache(), "/home/a/hf/hub");
  const Variable older("HUGGINGFACE_HUB_CACHE", "~");
  EXPECT_EQ(hub_cache(), "/home/a");
  const Variable cache("HF_HUB_CACHE", "~b/c");
  EXPECT_EQ(hub_cache(), "~b/c") << "another user's";
}

TEST(HubCache, SaysWhyAModelIsNotThere) {
  const test::TemporaryFolder folder;
  const Variable cache("HF_HUB_CACHE", folder.path().string());
  const fs::path model = folder / "models--org--name";
  EXPECT_EQ(not_in_cache("org/name"),
            "nor is it in the cache of Hugging Face, " + folder.path().string() + ": hf download org/name");
  create_folder(model / "blobs");
  EXPECT_EQ(not_in_cache("org/name"),
            "the cache of Hugging Face has nothing of it, its download was broken off: hf download org/name");
  create_folder(model / "snapshots" / "aaa");
  create_folder(model / "snapshots" / "bbb");
  EXPECT_EQ(not_in_cache("org/name"), "the cache of Hugging Face has 2 snapshots of it, and " +
                                          (model / "refs" / "main").string() +
                                          " names none of them: name one with its whole path, or hf download org/name");
}

TEST(HubCache, KnowsItsSnapshotsByTheirPlace) {
  EXPECT_EQ(hub_name_of("/c/models--org--a-name.1/snapshots/abc"), "org/a-name.1");
  EXPECT_EQ(hub_name_of("/c/models--org--a-name.1/snapshots/abc/"), "org/a-name.1");
  for (const char* other : {"/c/models--org--name/blobs/abc", "/c/models--name/snapshots/abc", "/snapshots/abc", "/",
                            "x", "/c/datasets--org--name/snapshots/abc", "/c/models--org--name/snapshots"})
    EXPECT_EQ(hub_name_of(other), "") << other;
}

TEST(HubCache, FindsWhatABrokenDownloadLeft) {
  const test::TemporaryFolder folder;
  const fs::path model = folder / "models--org--name", snapshot = model / "snapshots" / "abc";
  create_folder(snapshot);
  EXPECT_TRUE(unfinished_downloads(snapshot).empty());
  create_folder(model / "blobs");
  write_text_file(model / "blobs" / "4d", "");
  write_text_file(model / "blobs" / "7a.incomplete", "");
  EXPECT_EQ(unfinished_downloads(snapshot), std::vector<fs::path>{model / "blobs" / "7a.incomplete"});
  EXPECT_EQ(unfinished_downloads(snapshot / "").size(), 1u);
  const fs::path download = folder / "local/.cache/huggingface/download";
  create_folder(download);
  write_text_file(download / "x.incomplete", "");
  write_text_file(download / "x.lock", "");
  EXPECT_EQ(unfinished_downloads(folder / "local").size(), 1u);
}

TEST(HubCache, KnowsNamesOfTheHub) {
  for (const char* name : {"org/name", "a/b", "HuggingFaceTB/SmolLM2-135M", "x_y/z.1"})
    EXPECT_TRUE(is_hub_name(name)) << name;
  for (const char* name : {"name", "a/b/c", "../b", "a/..", "/a/b", "a/", "a b/c", "", "a/b\n", "~/b"})
    EXPECT_FALSE(is_hub_name(name)) << name;
  EXPECT_EQ(download_command("org/name"), "hf download org/name");
}

}  // namespace
}  // namespace tessera
