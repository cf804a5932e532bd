#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <thread>

#include "io/file_descriptor.h"
#include "io/files.h"

namespace tessera {
namespace fs = std::filesystem;

RunFolder::RunFolder(fs::path folder, const std::string& resume, std::chrono::milliseconds patience)
    : path_(std::move(folder)) {
  if (resume != "auto") {
    const fs::path first = path_;
    for (int number = 2; fs::exists(path_); ++number) path_ = first.string() + "-" + std::to_string(number);
  }
  std::error_code failure;
  fs::create_directories(path_, failure);
  const fs::path lock_file = path_ / ".lock";
  lock_ = failure ? -1 : open(lock_file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (lock_ < 0)
    throw UserError(path_.string(), "this run folder cannot be made or written",
                    "set run.dir to a folder that can be written");
  // Ranks can outlive a killed launcher by a second or two.
  const auto give_up = std::chrono::steady_clock::now() + patience;
  while (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    if (std::chrono::steady_clock::now() >= give_up) {
      close(lock_);
      throw UserError(path_.string(), "another process is using this run folder",
                      "wait for it to end, or set run.dir to another folder");
    }
    std::this_thread::sleep_for(std::min(patience, std::chrono::milliseconds(100)));
  }
  for (const char* part : {"", "checkpoints", "adapter", "model", "peft"}) remove_temporaries(path_ / part);
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) close(lock_);
}

void append_to_file(const fs::path& path, std::string_view bytes) {
  errno = 0;
  std::FILE* file = std::fopen(path.c_str(), "ab");
  const bool written = file && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  if (!file || std::fclose(file) != 0 || !written) throw_file_error(path, "cannot be written", errno);
}

std::vector<Json> MetricsFile::lines() const {
  std::vector<Json> lines;
  if (!fs::exists(file_)) return lines;
  const std::string text = read_text_file(file_);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // torn by a kill
    lines.push_back(Json::parse(std::string_view(text).substr(begin, end - begin), file_.string()));
    begin = end + 1;
  }
  return lines;
}

void MetricsFile::rewind(int64_t step) {
  if (!fs::exists(file_)) return;
  std::string kept;
  with_place(file_.string(), [&] {
    for (const Json& line : lines()) {
      const Json* at = line.find("step");
      if (!line.find("event") && at && at->as_integer() <= step) kept += line.dump() + "\n";
    }
  });
  write_text_file(file_, kept);
}

void MetricsFile::append(const Json& line) { append_to_file(file_, line.dump() + "\n"); }

std::optional<Json> MetricsFile::done() const {
  const auto all = lines();
  if (all.empty()) return std::nullopt;
  const Json* event = all.back().find("event");
  if (!event || !event->is_string() || event->as_string() != "done") return std::nullopt;
  return all.back();
}

}  // namespace tessera
