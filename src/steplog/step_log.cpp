#include "steplog/step_log.h"

#include "core/error.h"
#include "io/file_lock.h"
#include "io/files.h"
#include "steplog/log_folder.h"
#include "steplog/log_header.h"

// Who may do what, and the locks that make it so. A folder without header.json is what a kill leaves of a log that
// was being made: create() goes on, open() says what is missing.

namespace tessera {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

FileDescriptor open_lock_file(const fs::path& folder) { return FileDescriptor::open_or_create(folder / ".lock"); }

FileLock take_lock(const FileDescriptor& file, const fs::path& folder, StepLog::Access access) {
  // Sharers hold the lock for one append each, and it is worth waiting for. A writer holds it as long as its log is
  // open: waiting would take as long as that run.
  const milliseconds patience{access == StepLog::Access::shared ? 30'000 : 0};
  auto taken = FileLock::take(file, patience);
  if (!taken)
    throw UserError(folder.string(), "the log is being written by another process", "wait until that one has ended");
  return std::move(*taken);
}

}  // namespace

struct StepLog::Impl {
  Impl(const fs::path& path, const Options& options) : access(options.access), folder(path, options) {}

  void require_writer() const { TS_CHECK(access == Access::write, "the log is not open for one writer"); }
  FileLock locked() {
    // Opened once: a sharer locks the same file in every call.
    if (!lock_file) lock_file.emplace(open_lock_file(folder.path()));
    return take_lock(*lock_file, folder.path(), access);
  }

  Access access;
  LogFolder folder;
  std::optional<FileDescriptor> lock_file;
  std::optional<FileLock> lock;  // a writer's: as long as the log is open. A sharer takes it for the time of a call
};

StepLog::StepLog(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StepLog::StepLog(StepLog&&) noexcept = default;
StepLog::~StepLog() = default;

StepLog StepLog::create(const fs::path& folder, const std::string& header_json, const Options& options) {
  // A reader makes nothing. open() then says what is missing.
  if (options.access == Access::read && !has_log_header(folder)) return open(folder, options);
  create_folder(folder);
  if (options.access == Access::read) {
    keep_log_header(folder, header_json);
  } else {
    // Two processes may be making the same log: under the lock one writes the header, and the other finds it and
    // compares.
    const FileDescriptor lock_file = open_lock_file(folder);
    const FileLock lock = take_lock(lock_file, folder, options.access);
    keep_log_header(folder, header_json);
  }
  return open(folder, options);
}

StepLog StepLog::open(const fs::path& folder, const Options& options) {
  auto impl = std::make_unique<Impl>(folder, options);
  if (options.access != Access::read) {
    impl->lock.emplace(impl->locked());
    // Under the lock nobody else is writing: what bears a temporary name was left by a kill.
    remove_temporaries(folder);
    if (const std::string notice = impl->lock->notice(); !notice.empty()) impl->folder.add_notice(notice);
  }
  // Only who holds the lock may mend: for a reader, a torn end may be a record that is being written right now.
  impl->folder.load(impl->lock ? Repair::yes : Repair::no);
  // From here on a sharer takes the lock for each call.
  if (options.access == Access::shared) impl->lock.reset();
  return StepLog(std::move(impl));
}

const std::string& StepLog::header() const { return impl_->folder.header(); }
const RunId& StepLog::run() const { return impl_->folder.run(); }
const ChainRules& StepLog::chain() const { return impl_->folder.chain(); }
const std::vector<std::string>& StepLog::notices() const { return impl_->folder.notices(); }
const std::optional<UserError>& StepLog::damage() const { return impl_->folder.damage(); }
uint64_t StepLog::first_index() const { return impl_->folder.first_index(); }
uint64_t StepLog::size() const { return impl_->folder.size(); }

int64_t StepLog::bytes_on_disk() const { return impl_->folder.bytes(); }

void StepLog::append(std::span<const std::byte> record, Sync sync) {
  impl_->require_writer();
  impl_->folder.append(record, sync);
}

void StepLog::sync() { impl_->folder.sync(); }

void StepLog::new_segment() { impl_->folder.new_segment(); }

void StepLog::refresh() {
  // A writer is the only one: it knows what its log holds.
  if (impl_->access != Access::write) impl_->folder.refresh(Repair::no);
}

bool StepLog::append_if(uint64_t expected, std::span<const std::byte> record) {
  TS_CHECK(impl_->access == Access::shared, "the log is not open for shared appending");
  // Held from reading on to appending: between the comparison and the write nobody else can get in.
  const FileLock lock = impl_->locked();
  impl_->folder.refresh(Repair::yes);
  if (size() != expected) return false;
  impl_->folder.append(record, Sync::now);
  return true;
}

void StepLog::truncate(uint64_t size) {
  impl_->require_writer();
  if (size >= this->size()) return;
  // What compaction has dropped cannot be gone back to.
  if (size < first_index())
    throw UserError(impl_->folder.path().string(),
                    fmt::format("cannot go back to {} records: the log was compacted and begins with record {}", size,
                                first_index()));
  impl_->folder.truncate(size);
}

std::vector<std::byte> StepLog::start_state() const {
  return first_index() > 0 ? impl_->folder.start().save() : Bytes{};
}

ChainRules StepLog::start() const { return impl_->folder.start(); }

void StepLog::begin_at(std::span<const std::byte> state) {
  impl_->require_writer();
  const auto rules = impl_->folder.restored(state);
  TS_CHECK(std::holds_alternative<ChainRules>(rules) && std::get<ChainRules>(rules).next_index() > size(),
           "a log of {} records cannot begin where it is told to", size());
  impl_->folder.begin_at(state);
}

void StepLog::compact(uint64_t index, Compaction how) {
  impl_->require_writer();
  impl_->folder.compact(index, how);
}

void StepLog::for_each(uint64_t index,
                       const std::function<bool(const Record&, std::span<const std::byte>)>& use) const {
  impl_->folder.for_each(index, use);
}

}  // namespace tessera
