// log.txt has every line that is said, progress among them; the terminal has what its reader asked for. On a terminal
// the line of progress is written over and over, so that lines that stay have to begin on a line of their own.

#include "train/reporter.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>

#include "io/file_descriptor.h"
#include "io/output.h"

namespace tessera {

Progress progress_kind(const LogConfig& config, bool quiet, bool launched) {
  if (quiet || config.progress == "none") return Progress::none;
  if (config.progress == "live") return Progress::live;
  if (config.progress == "plain") return Progress::plain;
  return isatty(STDOUT_FILENO) && !launched ? Progress::live : Progress::plain;
}

Reporter::Reporter(const RunFolder* folder, Progress kind) : kind_(kind) {
  if (!folder) return;
  folder_ = folder->path();
  metrics_ = std::make_unique<MetricsFile>(*folder / "metrics.jsonl");
  // Opened once and appended to: a run that goes on writes behind what is there.
  log_ = std::fopen((folder_ / "log.txt").c_str(), "ab");
  if (!log_) throw_file_error(folder_ / "log.txt", "cannot be written", errno);
}

Reporter::~Reporter() {
  clear_live_line();
  if (log_) std::fclose(log_);
}

void Reporter::clear_live_line() {
  // A live line has no end yet: what is said next must not be written behind it.
  if (live_open_) put_out("\n");
  live_open_ = false;
}

void Reporter::write_log(const std::string& line) {
  if (!log_) return;
  errno = 0;
  if (std::fputs((line + "\n").c_str(), log_) < 0 || std::fflush(log_) != 0)
    throw_file_error(folder_ / "log.txt", "cannot be written", errno);
}

void Reporter::say(const std::string& line) {
  write_log(line);
  if (kind_ == Progress::none) return;
  clear_live_line();
  put_out(line + "\n");
  flush_output();
}

void Reporter::progress(const std::string& line) {
  if (kind_ != Progress::live) return say(line);
  write_log(line);
  // Back to the line's start, and the rest of the old line erased.
  put_out("\r\x1b[K" + line);
  flush_output();
  live_open_ = true;
}

void Reporter::rewind(int64_t step) {
  if (!metrics_) return;
  metrics_->rewind(step);
  events_ = std::make_unique<EventFile>(folder_, metrics_->lines());
}

void Reporter::metric(const Json& line) {
  if (metrics_) metrics_->append(line);
  if (events_) events_->append(line);
}

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  // Linux counts ru_maxrss in units of 1024 bytes.
  return usage.ru_maxrss * 1024;
}

}  // namespace tessera
