#pragma once
// A machine's place in the folder that the processes of one run share.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>

#include "io/file_descriptor.h"
#include "io/file_lock.h"

namespace tessera {

/// A process's number among those that share a folder, held as long as this lives: machines/NNNNN.lock under flock,
/// which says how many machines the process counts. All who run at one time count alike,
/// or one would vote and not be heard.
class Seat {
 public:
  /// @param shared  the folder; it need not exist yet
  /// @param agree   called while no other process takes a seat: compares with what the first of them left, or leaves it
  /// @throws UserError when a running process has this number, or counts other machines
  Seat(const std::filesystem::path& shared, uint32_t machine, uint32_t machines, const std::function<void()>& agree);

  /// Whether a process has this number now.
  bool is_taken(uint32_t machine) const;

 private:
  std::filesystem::path folder_;
  uint32_t machine_;
  FileDescriptor file_;
  std::optional<FileLock> lock_;
};

}  // namespace tessera
