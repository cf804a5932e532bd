#pragma once
// What a run says: the terminal, log.txt, metrics.jsonl and the TensorBoard file. Rank 0 speaks; the others hold a
// silent one.

#include <cstdio>
#include <memory>
#include <string>

#include "train/run_folder.h"
#include "train/tensorboard.h"
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
  /// Before the first metric of a run that starts (-1) or goes on after `step`: later lines go, and the event file is
  /// made anew.
  void rewind(int64_t step);
  /// One object of metrics.jsonl, its numbers also to TensorBoard.
  void metric(const Json& line);

 private:
  void clear_live_line();
  void write_log(const std::string& line);
  Progress kind_;
  std::unique_ptr<MetricsFile> metrics_;
  std::unique_ptr<EventFile> events_;  // from rewind on
  std::filesystem::path folder_;
  std::FILE* log_ = nullptr;
  bool live_open_ = false;
};

int64_t peak_rss_bytes();

}  // namespace tessera
