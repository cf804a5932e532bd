#pragma once
// What a run says: the terminal, log.txt and metrics.jsonl. Rank 0 speaks; the others hold a silent one.

#include <cstdio>
#include <memory>
#include <string>

#include "train/run_folder.h"
#include "train/train_config.h"

namespace tessera {

enum class Progress { none, plain, live };

/// none when quiet; "auto" is live on a terminal without a launcher (its ranks see a pseudo-terminal even into a file).
Progress progress_kind(const LogConfig&, bool quiet, bool launched);

class Reporter {
 public:
  /// @param folder  nullptr: nothing is written to files (ranks other than 0, --check)
  Reporter(const RunFolder* folder, Progress);
  ~Reporter();
  Reporter(const Reporter&) = delete;

  /// A line for the reader: terminal and log.txt.
  void say(const std::string& line);
  /// The updating line (live) or a line like any other (plain). `important` lines stay.
  void progress(const std::string& line);
  /// One object of metrics.jsonl.
  void metric(const Json& line);
  MetricsFile* metrics() { return metrics_.get(); }

 private:
  void clear_live_line();
  Progress kind_;
  std::unique_ptr<MetricsFile> metrics_;
  std::FILE* log_ = nullptr;
  bool live_open_ = false;
};

int64_t peak_rss_bytes();

}  // namespace tessera
