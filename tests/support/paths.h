#pragma once
// Where tests find things: the source tree, the shared data (optional), a fresh temporary folder.

#include <filesystem>
#include <string>

namespace tessera::test {

/// The repository's root.
std::filesystem::path source_dir();

/// ../shared/data beside the repository (or $TESSERA_SHARED_DATA), or an empty path when it is not there.
std::filesystem::path shared_data();

/// A new empty folder, removed with everything in it at the end of its life.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::string read_file(const std::filesystem::path&);
void write_file(const std::filesystem::path&, const std::string&);

}  // namespace tessera::test

/// Skips a test that needs the shared data folder.
#define TESSERA_NEEDS_SHARED_DATA() \
  if (::tessera::test::shared_data().empty()) GTEST_SKIP() << "../shared/data is not there"
