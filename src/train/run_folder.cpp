// A folder belongs to the process that holds flock on its file .lock. A new folder may be taken away again by the
// process that made it, when that failed at once: then a lock that was waited for is one of a file that is gone, and
// everything begins anew with the folder that has its name now.

#include "train/run_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <system_error>

#include "core/error.h"
#include "io/files.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr const char* kLock = ".lock";

[[noreturn]] void fail(const fs::path& folder, const std::string& reason) {
  throw UserError(folder.string(), "this run folder cannot be made or written: " + reason,
                  "set run.dir to a folder that can be written");
}

/// @return whether it was made here
bool make_folders(const fs::path& wanted, const fs::path& folder) {
  std::error_code failure;
  const bool is_new = !folder.empty() && fs::create_directories(folder, failure);
  if (!failure && !folder.empty() && !fs::is_directory(folder))
    failure = std::make_error_code(std::errc::not_a_directory);
  // Named by what was asked for, not by the parent that could not be made.
  if (failure) fail(wanted, failure.message());
  return is_new;
}

/// Whether the folder was made here: of several processes that try at once, one does.
bool make_new(const fs::path& folder) {
  // Makes the folder or finds it there, in one step: it is new for one process alone.
  if (::mkdir(folder.c_str(), 0777) == 0) return true;
  if (errno != EEXIST) fail(folder, std::generic_category().message(errno));
  return false;
}

}  // namespace

RunFolder::RunFolder(const fs::path& folder, const std::string& resume,
                     const std::function<void(const std::string&)>& say, std::chrono::milliseconds patience)
    : path_((folder / "").parent_path()) {
  if (resume == "auto")
    take(say, patience);
  else
    take_a_new_one();
  for (const char* part : {"", "checkpoints", "adapter", "sharing", "model", "peft"}) remove_temporaries(path_ / part);
}

void RunFolder::take(const std::function<void(const std::string&)>& say, std::chrono::milliseconds patience) {
  do {
    lock_.reset();
    lock_file_.reset();
    is_new_ = make_folders(path_, path_);
    // Taken at once, or waited for; then see whether it is the lock of the folder that is there now.
    if (lock({})) continue;
    if (say)
      say(fmt::format("{}: another process is using this run folder: waiting up to {:.0f} s for it to end",
                      path_.string(), std::chrono::duration<double>(patience).count()));
    if (!lock(patience))  // ranks can outlive a killed launcher by a second or two
      throw UserError(path_.string(), "another process is using this run folder",
                      "wait for it to end, or set run.dir to another folder");
  } while (!lock_counts());
}

bool RunFolder::lock_counts() const {
  struct stat locked, there;
  if (::fstat(lock_file_->get(), &locked) != 0 || ::stat((path_ / kLock).c_str(), &there) != 0) return false;
  // The same file, by device and inode, and not another of its name.
  return locked.st_dev == there.st_dev && locked.st_ino == there.st_ino;
}

void RunFolder::take_a_new_one() {
  const std::string first = path_.string();
  make_folders(path_, path_.parent_path());
  // Between making and locking, a process that goes on with whatever it finds may have come in.
  for (int number = 2; !(make_new(path_) && lock({}) && is_untouched()); ++number) {
    lock_.reset();
    lock_file_.reset();
    path_ = fmt::format("{}-{}", first, number);
  }
  is_new_ = true;
}

RunFolder::~RunFolder() {
  // A run that failed at its very start leaves no empty folder behind, for which the next one would get another number.
  if (!is_new_ || std::uncaught_exceptions() == 0 || !is_untouched()) return;
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

bool RunFolder::lock(std::chrono::milliseconds patience) {
  lock_.reset();
  // Once open, that file is waited for. Who held it may take its folder away meanwhile: lock_counts tells.
  if (!lock_file_) {
    try {
      lock_file_.emplace(FileDescriptor::open_or_create(path_ / kLock));
    } catch (const UserError& error) {
      fail(path_, fmt::format("{} {}", kLock, error.message()));
    }
  }
  if (auto taken = FileLock::wait(*lock_file_, patience, "waiting for the run folder"))
    lock_.emplace(std::move(*taken));
  return lock_.has_value();
}

bool RunFolder::is_untouched() const {
  std::error_code ignored;  // a folder that cannot be read is none of ours
  return std::all_of(fs::directory_iterator(path_, ignored), fs::directory_iterator(),
                     [](const fs::directory_entry& entry) { return entry.path().filename() == kLock; });
}

void append_to_file(const fs::path& path, std::string_view bytes) {
  errno = 0;
  std::FILE* file = std::fopen(path.c_str(), "ab");
  const bool written = file && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  // Closed before it is judged: what was buffered is written only then.
  if (!file || std::fclose(file) != 0 || !written) throw_file_error(path, "cannot be written", errno);
}

namespace {

/// A line of metrics: an object whose step, if it has one, is a whole number.
Json parse_metrics(std::string_view line, const fs::path& file, int64_t number) {
  std::string fault;
  try {
    Json json = Json::parse(line, "");
    const Json* step = json.find("step");
    if (json.is_object() && (!step || step->is_integer())) return json;
    fault = "it is no object with a step";
  } catch (const UserError& error) {
    fault = error.what();
  }
  throw UserError(fmt::format("{}:{}", file.string(), number), "this line of metrics is damaged: " + fault,
                  fmt::format("remove it, the run goes on without it: sed -i {}d '{}'", number, file.string()));
}

}  // namespace

std::vector<Json> MetricsFile::lines() const {
  std::vector<Json> lines;
  if (!fs::exists(file_)) return lines;
  const std::string text = read_text_file(file_);
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // torn by a kill
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) lines.push_back(parse_metrics(line, file_, number));
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
  write_text_file(file_, kept);  // events, "done" among them, are of the run as it was
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
