#pragma once
// What a node has to know of itself when it is started again after a kill: node.json in its run folder.

#include <filesystem>
#include <optional>
#include <string>

#include "steplog/record.h"

namespace tessera {

/// {"last_seed_round", "machine", "name", "run", "run_name", "vote"}, replaced whole and synced before each vote is
/// sent: a machine that goes on with its number votes in no round twice, for other directions of its numbers would be
/// other votes. The vote itself is kept, as it may have been lost, and the same bytes may be sent again.
struct NodeFile {
  std::string name, run, run_name;  // the node's; the run's SHA-256, and its name at the engine
  uint32_t machine = 0;
  int64_t last_seed_round = -1;  // none
  Bytes vote{};                  // of that round, as it was sent

  /// @throws UserError when the file is damaged
  static std::optional<NodeFile> read(const std::filesystem::path& file);
  void write(const std::filesystem::path& file) const;
};

}  // namespace tessera
