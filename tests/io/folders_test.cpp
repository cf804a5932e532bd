#include "io/folders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "io/files.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

bool is_letter(const std::string& name) { return name.size() == 1; }

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class Folders : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    test::write_file(folder_ / name, text);
  }
  test::TemporaryFolder folder_;
};

TEST_F(Folders, ReplaceWhatIsOursAndKeepTheRest) {
  write("out/a", "old");
  write("out/b", "old");
  write("out/.a.tmp-12", "of a killed process");
  write("out/notes.md", "mine");
  write("out/sub/c", "mine");
  replace_folder(folder_ / "out", is_letter, [&](const fs::path& to) {
    write_text_file(to / "a", "new");
    EXPECT_EQ(test::read_file(folder_ / "out/a"), "old");  // until it is whole
  });
  EXPECT_THAT(names_in(folder_ / "out"), ElementsAre("a", "notes.md", "sub"));
  EXPECT_EQ(test::read_file(folder_ / "out/a"), "new");
  EXPECT_THAT(names_in(folder_.path()), ElementsAre("out"));
}

TEST_F(Folders, StayAsTheyAreWhenWritingFails) {
  write("out/a", "old");
  try {
    replace_folder(folder_ / "out", is_letter, [&](const fs::path& to) {
      write_text_file(to / "a", "new");
      throw UserError((to / "b").string(), "the disk is full");
    });
    FAIL();
  } catch (const UserError& error) {
    EXPECT_EQ(error.where(), (folder_ / "out/b").string());
  }
  EXPECT_EQ(test::read_file(folder_ / "out/a"), "old");
  EXPECT_THAT(names_in(folder_.path()), ElementsAre("out"));
}

TEST_F(Folders, ThatAreLinksStayLinks) {
  write("elsewhere/a", "old");
  fs::create_symlink(folder_ / "elsewhere", folder_ / "out");
  replace_folder(folder_ / "out", is_letter, [&](const fs::path& to) { write_text_file(to / "b", "new"); });
  EXPECT_TRUE(fs::is_symlink(folder_ / "out"));
  EXPECT_THAT(names_in(folder_ / "elsewhere"), ElementsAre("b"));
}

TEST_F(Folders, AreMadeWithTheirParents) {
  replace_folder(folder_ / "x/y/out/", is_letter, [&](const fs::path& to) { write_text_file(to / "a", "new"); });
  EXPECT_EQ(test::read_file(folder_ / "x/y/out/a"), "new");
}

TEST_F(Folders, WithWeightsOfOthersAreRefused) {
  for (const char* name : {"model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                           "adapter_model.bin", "adapter_config.json", "consolidated.00.pth"}) {
    fs::remove_all(folder_ / "out");
    write(std::string("out/") + name, "");
    try {
      refuse_foreign_weights(folder_ / "out", is_letter);
      FAIL() << name;
    } catch (const UserError& error) {
      EXPECT_THAT(error.message(), HasSubstr(std::string("holds \"") + name + "\""));
    }
    refuse_foreign_weights(folder_ / "out", [&](const std::string& other) { return other == name; });
  }
  fs::remove_all(folder_ / "out");
  write("out/README.md", "");
  write("out/.model.safetensors.tmp-1", "");
  EXPECT_NO_THROW(refuse_foreign_weights(folder_ / "out", is_letter));
  EXPECT_NO_THROW(refuse_foreign_weights(folder_ / "absent", is_letter));
}

}  // namespace
}  // namespace tessera
