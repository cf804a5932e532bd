#include "io/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <string>

#include "core/error.h"
#include "io/mapped_file.h"
#include "support/error_text.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::error_text;

int files_in(const fs::path& folder) {
  return static_cast<int>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(ReadTextFile, GivesTheBytesOfTheFile) {
  const test::TemporaryFolder folder;
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{1} << 20, (size_t{1} << 20) + 1}) {
    const std::string text(bytes, '\0');
    test::write_file(folder / "a", text);
    EXPECT_EQ(read_text_file(folder / "a"), text);
  }
}

TEST(ReadTextFile, ReadsFilesThatDoNotKnowTheirSize) {
  const std::string text = read_text_file("/proc/self/status");  // says that it has 0 bytes
  EXPECT_NE(text.find("Pid:"), std::string::npos);
}

TEST(ReadTextFile, ErrorsNameTheFile) {
  const test::TemporaryFolder folder;
  const std::string absent = (folder / "absent").string();
  EXPECT_EQ(error_text([&] { read_text_file(absent); }), absent + ": cannot be opened: No such file or directory");
  EXPECT_EQ(error_text([&] { read_text_file(folder.path()); }),
            folder.path().string() + ": cannot be opened: Is a directory");
}

TEST(WriteTextFile, ReplacesAFileAndLeavesNothingElse) {
  const test::TemporaryFolder folder;
  write_text_file(folder / "a.json", "first, and longer");
  write_text_file(folder / "a.json", "second");
  EXPECT_EQ(test::read_file(folder / "a.json"), "second");
  EXPECT_EQ(files_in(folder.path()), 1);
}

TEST(WriteTextFile, ErrorsNameTheFileAndNotTheTemporary) {
  const test::TemporaryFolder folder;
  const std::string file = (folder / "no/such/a.json").string();
  EXPECT_EQ(error_text([&] { write_text_file(file, "x"); }), file + ": cannot be created: No such file or directory");
  fs::create_directory(folder / "taken");
  EXPECT_EQ(error_text([&] { write_text_file(folder / "taken", "x"); }),
            (folder / "taken").string() + ": cannot be written: Is a directory");
  EXPECT_EQ(files_in(folder.path()), 1);
}

TEST(WriteTextFile, ADiskThatFillsUpLeavesTheOldFile) {
  const test::TemporaryFolder folder;
  const std::string file = (folder / "a").string();
  write_text_file(file, "old");
  const test::FileSizeLimit limit(1000);
  EXPECT_EQ(error_text([&] { write_text_file(file, std::string(2000, 'x')); }),
            file + ": cannot be written: " + test::kFileTooLarge);
  EXPECT_EQ(test::read_file(file), "old");
  EXPECT_EQ(files_in(folder.path()), 1);
}

TEST(WriteFileAtomically, AWriterThatFailsLeavesTheOldFileAndItsOwnError) {
  const test::TemporaryFolder folder;
  write_text_file(folder / "a", "old");
  EXPECT_THROW(write_file_atomically(folder / "a",
                                     [](const fs::path& temporary) {
                                       test::write_file(temporary, "half");
                                       throw std::runtime_error("stop");
                                     }),
               std::runtime_error);
  EXPECT_EQ(error_text([&] {
              write_file_atomically(folder / "a", [](const fs::path&) { throw UserError("another file", "is bad"); });
            }),
            "another file: is bad");
  EXPECT_EQ(test::read_file(folder / "a"), "old");
  EXPECT_EQ(files_in(folder.path()), 1);
}

TEST(WriteFileAtomically, ReadersSeeTheOldFileUntilTheNewOneIsWhole) {
  const test::TemporaryFolder folder;
  write_text_file(folder / "a", "old");
  const auto mapped = MappedFile::open(folder / "a");
  write_file_atomically(folder / "a", [&](const fs::path& temporary) {
    EXPECT_EQ(temporary.parent_path(), folder.path());
    test::write_file(temporary, "new and longer");
    EXPECT_EQ(test::read_file(folder / "a"), "old");
  });
  EXPECT_EQ(test::read_file(folder / "a"), "new and longer");
  EXPECT_EQ(static_cast<char>(mapped->bytes()[0]), 'o');  // who mapped the old file keeps it
}

// As two containers, or two hosts, whose process ids are equal.
TEST(WriteFileAtomically, TwoWritersOfOneFileBothSucceed) {
  const test::TemporaryFolder folder;
  write_file_atomically(folder / "a", [&](const fs::path& first) {
    test::write_file(first, "first");
    write_file_atomically(folder / "a", [&](const fs::path& second) {
      EXPECT_NE(first, second);
      test::write_file(second, "second");
    });
    EXPECT_EQ(test::read_file(folder / "a"), "second");
  });
  EXPECT_EQ(test::read_file(folder / "a"), "first");
  EXPECT_EQ(files_in(folder.path()), 1);
}

TEST(WriteFileAtomically, TakesTheLongestNameThatAFileSystemTakes) {
  const test::TemporaryFolder folder;
  const std::string longest = std::string(250, 'x') + ".json";
  write_text_file(folder / longest, "text");
  EXPECT_EQ(test::read_file(folder / longest), "text");
  std::string accents;
  for (int i = 0; i < 127; ++i) accents += "\xc3\xa9";
  write_file_atomically(folder / accents, [](const fs::path& temporary) {
    const std::string name = temporary.filename().string();
    EXPECT_EQ(name.find(".tmp-") % 2, 1u);  // behind the dot, whole characters
    test::write_file(temporary, "text");
  });
  EXPECT_EQ(files_in(folder.path()), 2);
}

TEST(WriteFileAtomically, TakesANameWithoutAFolder) {
  const test::TemporaryFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  write_text_file("plain", "text");
  fs::current_path(before);
  EXPECT_EQ(test::read_file(folder / "plain"), "text");
}

TEST(RemoveTemporaries, TakesWhatKilledProcessesLeftAndNothingElse) {
  const test::TemporaryFolder folder;
  for (const char* name : {".a.h5.tmp-123", ".b.tmp-9", ".c.tmp-0123456789abcdef", "a.tmp-1", ".a.tmp-", ".a.tmp-x1",
                           ".a.tmp-abc", ".hidden", "a.h5"})
    test::write_file(folder / name, "x");
  remove_temporaries(folder.path());
  for (const char* name : {"a.tmp-1", ".a.tmp-", ".a.tmp-x1", ".a.tmp-abc", ".hidden", "a.h5"})
    EXPECT_TRUE(fs::exists(folder / name)) << name;
  EXPECT_EQ(files_in(folder.path()), 6);
  EXPECT_NO_THROW(remove_temporaries(folder / "absent"));
}

TEST(RemoveTemporaries, KnowsTheNamesThatAtomicWritesUse) {
  const test::TemporaryFolder folder;
  write_file_atomically(folder / "a", [&](const fs::path& temporary) {
    test::write_file(temporary, "x");
    remove_temporaries(folder.path());
    EXPECT_FALSE(fs::exists(temporary));
    test::write_file(temporary, "x");
  });
}

// FIPS 180-2's examples.
TEST(Sha256, GivesThePublishedDigests) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, OfAFileEqualsThatOfItsBytes) {
  const test::TemporaryFolder folder;
  for (size_t bytes : {size_t{0}, size_t{5}, size_t{1} << 20, (size_t{3} << 20) + 7}) {
    std::string text(bytes, 'a');
    if (bytes) text.back() = 'b';
    test::write_file(folder / "a", text);
    EXPECT_EQ(sha256_of_file(folder / "a"), sha256_hex(text));
    EXPECT_EQ(sha256_of_file(folder / "a", 3), sha256_hex(text.substr(std::min<size_t>(3, bytes))));
  }
}

TEST(MappedFile, HoldsTheBytesAndThePath) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "a", "abc");
  const auto file = MappedFile::open(folder / "a");
  ASSERT_EQ(file->bytes().size(), 3u);
  EXPECT_EQ(static_cast<char>(file->bytes()[2]), 'c');
  EXPECT_EQ(file->path(), folder / "a");
}

TEST(MappedFile, AnEmptyFileIsAnEmptySpan) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "a", "");
  EXPECT_TRUE(MappedFile::open(folder / "a")->bytes().empty());
}

TEST(MappedFile, WhatIsForgottenReadsTheSameAgain) {
  const test::TemporaryFolder folder;
  std::string text(100'000, 'a');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 23);
  test::write_file(folder / "a", text);
  const auto file = MappedFile::open(folder / "a");
  file->forget(file->bytes().subspan(5'000, 80'000));
  file->forget(file->bytes());
  file->forget(std::as_bytes(std::span(text)));  // not of the mapping: left alone
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()), text);
  EXPECT_EQ(text[99'999], static_cast<char>('a' + 99'999 % 23));
}

template <int kKinds> void* lacking(void* address, size_t size, int protection, int kind, int file, off_t offset) {
  if (kKinds & kind) return ::mmap(address, size, protection, kind, file, offset);
  errno = ENODEV;
  return MAP_FAILED;
}

TEST(MappedFile, IsMappedPrivatelyOrReadWhereTheFileSystemLacksMappings) {
  const test::TemporaryFolder folder;
  std::string text(10'000, 'a');
  text.back() = 'z';
  test::write_file(folder / "a", text);
  const auto bytes = [](const MappedFile& file) {
    return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  };
  const auto privately = MappedFile::open(folder / "a", lacking<MAP_PRIVATE>);
  EXPECT_TRUE(privately->is_mapped());
  EXPECT_EQ(bytes(*privately), text);
  const auto read = MappedFile::open(folder / "a", lacking<0>);
  EXPECT_FALSE(read->is_mapped());
  read->forget(read->bytes());
  EXPECT_EQ(bytes(*read), text);
}

TEST(MappedFile, KnowsWhetherItsFileWasReplacedOrAltered) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "a", "abc");
  const auto file = MappedFile::open(folder / "a");
  EXPECT_EQ(file->change(), MappedFile::Change::none);
  fs::last_write_time(folder / "a", fs::last_write_time(folder / "a") + std::chrono::seconds(1));
  EXPECT_EQ(file->change(), MappedFile::Change::altered);
  const auto again = MappedFile::open(folder / "a");
  test::write_file(folder / "a", "abcd");
  EXPECT_EQ(again->change(), MappedFile::Change::altered);
  const auto third = MappedFile::open(folder / "a");
  write_text_file(folder / "a", "abcd");
  EXPECT_EQ(third->change(), MappedFile::Change::replaced);
  fs::remove(folder / "a");
  EXPECT_EQ(third->change(), MappedFile::Change::replaced);
}

TEST(MappedFile, ErrorsNameTheFile) {
  const test::TemporaryFolder folder;
  const std::string absent = (folder / "absent").string();
  EXPECT_EQ(error_text([&] { MappedFile::open(absent); }), absent + ": cannot be opened: No such file or directory");
}

TEST(OpenToRead, WhatIsNoFileIsNamedAndNotWaitedFor) {
  const test::TemporaryFolder folder;
  const std::string pipe = (folder / "pipe").string();
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(error_text([&] { read_text_file(pipe); }),
            pipe +
                ": is a pipe and no file\n"
                "  write what comes from there to a file, and name that: files are read more than once");
  EXPECT_EQ(error_text([&] { MappedFile::open(pipe); }).find(pipe + ": is a pipe and no file"), 0u);
  EXPECT_EQ(error_text([&] { sha256_of_file(pipe); }).find(pipe + ": is a pipe and no file"), 0u);
  EXPECT_EQ(error_text([&] { read_text_file("/dev/zero"); }).find("/dev/zero: is a device and no file"), 0u);
}

TEST(OpenToRead, APointerOfGitLfsIsNoContent) {
  const test::TemporaryFolder folder;
  const std::string file = (folder / "model.safetensors").string();
  test::write_file(file, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n");
  EXPECT_EQ(error_text([&] { MappedFile::open(file); }),
            file +
                ": is a git-lfs pointer: the file itself was not fetched\n"
                "  run \"git lfs pull\" in its repository, or download the file");
  EXPECT_EQ(error_text([&] { read_text_file(file); }).find(file + ": is a git-lfs pointer"), 0u);
}

}  // namespace
}  // namespace tessera
