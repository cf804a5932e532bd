#pragma once
// One run = one folder: recipe.toml, metrics.jsonl, log.txt, checkpoints/, what is exported at the end.

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "io/file_lock.h"

namespace tessera {

/// The folder of a run, locked while this object lives. Only rank 0 makes one.
class RunFolder {
 public:
  /// @param resume  "auto": use `folder`; "never": make the first of folder, folder-2, folder-3, ... that does not
  /// exist, which is this process's alone, however many start at once; a path: like "never"
  /// @param say       told when another process holds the folder and is waited for
  /// @param patience  how long to wait for it: it may be ending
  /// @throws UserError when another process holds the folder, or it cannot be made
  /// Temporaries that a killed run left in it are removed.
  RunFolder(const std::filesystem::path& folder, const std::string& resume,
            const std::function<void(const std::string&)>& say = {},
            std::chrono::milliseconds patience = std::chrono::seconds(5));
  /// A folder that was made here and in which an error left nothing is gone again.
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  /// What is to be told of the folder's lock; mostly empty.
  std::string notice() const { return lock_->notice(); }

 private:
  void take(const std::function<void(const std::string&)>& say, std::chrono::milliseconds patience);
  void take_a_new_one();
  /// Whether the lock is of the file that lies in the folder:
  /// not when the process that made the folder has removed it since.
  bool lock_counts() const;
  bool lock(std::chrono::milliseconds patience);
  bool is_untouched() const;

  std::filesystem::path path_;
  bool is_new_ = false;
  std::optional<FileDescriptor> lock_file_;
  std::optional<FileLock> lock_;
};

/// Writes at the end of a file of a run. @throws UserError naming it
void append_to_file(const std::filesystem::path&, std::string_view bytes);

/// metrics.jsonl of a run: one object a line, complete lines only; blank lines do not count.
class MetricsFile {
 public:
  explicit MetricsFile(std::filesystem::path file) : file_(std::move(file)) {}
  /// Drops lines of steps after `step`, the "done" event and a torn last line: what a resumed run will write again.
  void rewind(int64_t step);
  void append(const Json& line);
  /// The {"event":"done"} line of a finished run.
  std::optional<Json> done() const;
  /// Every complete line, in order. @throws UserError naming file and line of one that is no object of metrics
  std::vector<Json> lines() const;

 private:
  std::filesystem::path file_;
};

}  // namespace tessera
