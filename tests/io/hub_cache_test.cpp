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
  fs::remove_all(model / "snapshots" / "aaa");
  write_text_file(model / "refs" / "main", "ccc");
  EXPECT_EQ(cached_model("org/a-name.1"), "") << "the only one is not the one that main names";
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
  const fs::path old = model / "snapshots" / "aaa", main = model / "refs" / "main";
  create_folder(old);
  create_folder(model / "refs");
  write_text_file(main, "ccc");
  EXPECT_EQ(not_in_cache("org/name"),
            fmt::format("the cache of Hugging Face has one snapshot of it, and {} names another, \"ccc\", which is not "
                        "there: hf download org/name, or name the folder of the one that you want:\n  {}",
                        main.string(), old.string()));
  create_folder(model / "snapshots" / "bbb");
  fs::remove(main);
  EXPECT_EQ(
      not_in_cache("org/name"),
      fmt::format("the cache of Hugging Face has 2 snapshots of it, and {}, which would name one, is not there: hf "
                  "download org/name, or name the folder of the one that you want:\n  {}\n  {}",
                  main.string(), old.string(), (model / "snapshots" / "bbb").string()));
}

TEST(HubCache, NamesTheModelThatWasMeant) {
  const test::TemporaryFolder folder;
  const Variable cache("HF_HUB_CACHE", folder.path().string());
  create_folder(folder / "models--Qwen--Qwen3-0.6B" / "snapshots" / "aaa");
  create_folder(folder / "models--Qwen--Qwen3-0.6" / "blobs");  // nothing to take
  for (const char* typed : {"qwen/qwen3-0.6b", "Qwen/Qwen3-0.6b"})
    EXPECT_TRUE(not_in_cache(typed).ends_with("\ndid you mean \"Qwen/Qwen3-0.6B\", which is there?"))
        << not_in_cache(typed);
  EXPECT_EQ(not_in_cache("meta-llama/Llama-3.2-1B").find("did you mean"), std::string::npos);
}

TEST(HubCache, SaysThatNobodyToldItWhereItIs) {
  const Variable home("HOME", std::nullopt), none("HF_HUB_CACHE", std::nullopt), no_home("HF_HOME", std::nullopt),
      no_xdg("XDG_CACHE_HOME", std::nullopt), no_old("HUGGINGFACE_HUB_CACHE", std::nullopt);
  EXPECT_EQ(hub_cache(), "");
  EXPECT_EQ(cached_model("org/name"), "");
  EXPECT_TRUE(not_in_cache("org/name").starts_with("none of HF_HUB_CACHE, HF_HOME and HOME is set"));
}

TEST(HubCache, KnowsTheHubsPages) {
  for (const char* page :
       {"https://huggingface.co/org/name", "https://huggingface.co/org/name/", "huggingface.co/org/name",
        "https://huggingface.co/org/name/tree/main", "https://hf.co/org/name?x=y", "hf://org/name"})
    EXPECT_EQ(hub_name_in_url(page), "org/name") << page;
  for (const char* other :
       {"org/name", "https://huggingface.co/org", "https://example.org/org/name", "", "https://huggingface.co//name"})
    EXPECT_EQ(hub_name_in_url(other), "") << other;
}

TEST(HubCache, LeadsFromAFolderOfItsOwnToTheModel) {
  const test::TemporaryFolder folder;
  const fs::path model = folder / "models--org--name", snapshot = model / "snapshots" / "abcdef0123";
  create_folder(snapshot);
  const std::string text = "this folder is the cache's, with all versions of the model: say model.path=";
  {
    const Variable cache("HF_HUB_CACHE", folder.path().string());
    for (const fs::path& inside : {model, model / "", model / "snapshots"})
      EXPECT_EQ(way_into_cache_folder(inside), text + "org/name") << inside;
  }
  const Variable other("HF_HUB_CACHE", (folder / "other").string());
  EXPECT_EQ(way_into_cache_folder(model), text + snapshot.string()) << "of another cache the name is of no use";
  EXPECT_EQ(way_into_cache_folder(snapshot), "");
  EXPECT_EQ(way_into_cache_folder(folder.path()), "");
  create_folder(model / "snapshots" / "b");
  EXPECT_NE(way_into_cache_folder(model).find("has 2 snapshots of it"), std::string::npos);
}

TEST(HubCache, GivesModelsTheirTitles) {
  EXPECT_EQ(title_of_model("/c/models--org--name/snapshots/0123456789abcdef/"), "org/name (0123456)");
  EXPECT_EQ(hub_revision_of("/c/models--org--name/snapshots/0123456789abcdef"), "0123456789abcdef");
  EXPECT_EQ(title_of_model("/models/smollm2/"), "smollm2");
  EXPECT_EQ(hub_revision_of("/models/smollm2"), "");
  EXPECT_EQ(title_of_model(""), "");
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
