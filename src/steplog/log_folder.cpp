// A kill between any two system calls leaves a log that load() reads. What takes another file's place (an archive, a
// segment cut from one, start.tsc) is written under a temporary name and renamed, and only then is the old one removed;
// a record that was not written to its end is cut off.

#include "steplog/log_folder.h"

#include <algorithm>

#include "core/error.h"
#include "io/files.h"
#include "io/sha256.h"
#include "steplog/log_header.h"
#include "steplog/segment_records.h"
#include "steplog/wire.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

fs::path start_file(const fs::path& folder) { return folder / "start.tsc"; }

void write_bytes(const fs::path& file, const Bytes& bytes) {
  write_file_atomically(file, [&](const fs::path& temporary) { FileDescriptor::create(temporary).write(bytes); });
}

}  // namespace

LogFolder::LogFolder(fs::path folder, const StepLog::Options& options)
    : folder_(std::move(folder)), options_(options), header_(read_log_header(folder_)), chain_(options.limits) {
  options_.limits = limits_of_header(header_, header_file(folder_).string(), options_.limits);
  // The header's text names the run; records carry the first bytes of its hash.
  options_.limits.run.sha256 = sha256(std::as_bytes(std::span(header_)));
}

int64_t LogFolder::bytes() const {
  int64_t bytes = 0;
  for (const Segment& segment : segments_) bytes += segment.bytes;
  return bytes;
}

std::variant<ChainRules, Refusal> LogFolder::restored(std::span<const std::byte> state) const {
  return ChainRules::restore(options_.limits, state);
}

void LogFolder::begin_at(std::span<const std::byte> state) {
  // Written first: when the process is killed behind it, loading removes what lies before the new start.
  write_bytes(start_file(folder_), Bytes(state.begin(), state.end()));
  load(Repair::yes);  // removes what lies before
}

ChainRules LogFolder::start() const {
  const fs::path file = start_file(folder_);
  if (!fs::exists(file)) return ChainRules(options_.limits);
  const std::string saved = read_text_file(file);
  auto rules = restored(std::as_bytes(std::span(saved)));
  if (const auto* why = std::get_if<Refusal>(&rules))
    throw UserError(file.string(), fmt::format("is damaged ({}: {})", why->rule, why->detail),
                    "every machine of the run can make it again: see docs/step_log.md");
  return std::get<ChainRules>(rules);
}

std::vector<Segment> LogFolder::list_segments(Repair repair) const {
  std::map<uint64_t, Segment> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    auto segment = parse_segment_name(entry.path());
    if (!segment) continue;
    // An archive and its segment hold the same records. The archive was renamed into place when it was whole, so it
    // counts.
    auto [place, is_new] = found.try_emplace(segment->first, *segment);
    if (!is_new && segment->form == SegmentForm::archive) std::swap(place->second, *segment);
    if (!is_new && repair == Repair::yes) fs::remove(segment->file);
  }
  std::vector<Segment> listed;
  for (auto& [first, segment] : found) {
    // Before the start: dropping these was decided, and a kill came before they were removed.
    if (first >= first_index_)
      listed.push_back(std::move(segment));
    else if (repair == Repair::yes)
      fs::remove(segment.file);
  }
  return listed;
}

void LogFolder::load(Repair repair) {
  chain_ = start();
  first_index_ = chain_.next_index();
  segments_.clear();
  starts_.clear();
  damage_.reset();
  SegmentFollower follower(chain_, run_prefix(), repair, SegmentFollower::Unfinished::told, notices_);
  const std::vector<Segment> listed = list_segments(repair);
  const auto follow = [&](const Segment& segment, bool is_last) {
    // A hole cannot be mended: the rounds in it would be missing from every replay.
    if (segment.first != chain_.next_index())
      throw UserError(segment.file.string(),
                      fmt::format("begins with record {}, but the records before it end with number {}", segment.first,
                                  static_cast<int64_t>(chain_.next_index()) - 1),
                      "a file is missing or has another name: take it from another machine of the run");
    segments_.push_back(segment);
    know_start(segments_.back());
    follower.follow(segments_.back(), is_last);
  };
  try {
    for (size_t i = 0; i < listed.size(); ++i) follow(listed[i], i + 1 == listed.size());
  } catch (const UserError& damage) {
    if (!options_.up_to_damage) throw;
    damage_ = damage;  // the segment that is damaged counts the records that were accepted
  }
}

void LogFolder::refresh(Repair repair) {
  // Another process may be appending at this moment: an end that is not whole yet is worth no notice.
  SegmentFollower follower(chain_, run_prefix(), repair, SegmentFollower::Unfinished::ignored, notices_);
  while (true) {  // a writer opens a new segment only when the one before is finished
    if (!segments_.empty()) follower.follow(segments_.back(), true);
    Segment next;
    next.first = chain_.next_index();
    next.file = folder_ / segment_name(next.first, SegmentForm::records);
    // An empty last segment begins with the very index that the next one would have.
    const bool is_there_already = !segments_.empty() && segments_.back().first == next.first;
    if (is_there_already || !fs::exists(next.file)) return;
    segments_.push_back(next);
  }
}

void LogFolder::for_each(uint64_t index,
                         const std::function<bool(const Record&, std::span<const std::byte>)>& use) const {
  if (index < first_index_)
    throw UserError(
        folder_.string(),
        fmt::format("record {} is not there: the log was compacted and begins with record {}", index, first_index_),
        "begin with a snapshot, or take the records from another machine of the run");
  std::optional<uint64_t> prev;
  uint64_t at = index;
  for (const Segment& known : segments_) {
    if (at >= known.end()) continue;
    // Another process may have archived it since it was listed.
    const Segment segment = as_it_is_now(known, run_prefix());
    const bool go_on =
        for_each_record(segment, run_prefix(), at, [&](std::span<const std::byte> encoded, int64_t offset) {
          const auto decoded = decode_record(encoded);
          if (const auto* why = std::get_if<Refusal>(&decoded)) throw_damaged(segment.file, offset, at, *why);
          const Record& record = std::get<Record>(decoded);
          // The chain was checked when the files were loaded; since then they may have been written to.
          if (record.index != at || (prev && record.prev != *prev))
            throw_damaged(segment.file, offset, at, {"prev", "it does not follow the record before it"});
          prev = chain_hash(encoded);
          ++at;
          return use(record, encoded);
        });
    if (!go_on) return;
  }
}

void LogFolder::start_segment() {
  Segment segment;
  // The name, the head and the chain agree: a segment says of itself where in the log it belongs.
  segment.first = chain_.next_index();
  segment.file = folder_ / segment_name(segment.first, segment.form);
  const FileDescriptor file = FileDescriptor::create(segment.file);
  file.write(file_head(segment.form, run_prefix(), chain_));
  // The bytes first, then the folder's entry for the file: after a power cut there is no segment without a head.
  file.sync();
  sync_folder(folder_);
  segment.bytes = kFileHeadBytes;
  segments_.push_back(segment);
  know_start(segment);
}

/// The chain is where the segment begins. Compacting it later need not read what lies before.
void LogFolder::know_start(const Segment& segment) {
  const bool is_writer = options_.access == StepLog::Access::write;
  if (is_writer && segment.form == SegmentForm::records) starts_.insert_or_assign(segment.first, chain_);
}

void LogFolder::append(std::span<const std::byte> encoded, StepLog::Sync how) {
  // All rules are asked before a byte is written: a log never holds a record that a reader would refuse.
  auto decoded = decode_record(encoded);
  auto* refusal = std::get_if<Refusal>(&decoded);
  std::optional<Refusal> broken = refusal ? std::optional(*refusal) : chain_.refuses(std::get<Record>(decoded));
  if (broken)
    throw UserError(folder_.string(), fmt::format("record {} breaks the rule \"{}\": {}", chain_.next_index(),
                                                  broken->rule, broken->detail));
  ByteWriter entry;
  entry.put(static_cast<uint32_t>(encoded.size()));
  entry.put(encoded);
  if (!has_room(entry.bytes().size())) {
    // Records that were not synced one by one are made lasting before a later file may be.
    sync();
    start_segment();
  }
  const bool is_synced = options_.sync_appends && how == StepLog::Sync::now;
  write_entry(segments_.back(), entry.bytes(), is_synced);
  is_synced_ = is_synced;  // with it all that this file has
  if (segments_.back().count % kPageRecords == 0) segments_.back().marks.push_back(segments_.back().bytes);
  ++segments_.back().count;
  segments_.back().bytes += static_cast<int64_t>(entry.bytes().size());
  // The chain moves on last: after an error above, the log is as it was.
  chain_.accept(std::get<Record>(decoded), encoded);
}

/// The whole entry on the disk, or an error and the file as it was (as far as it can be made so).
void LogFolder::write_entry(const Segment& segment, const Bytes& entry, bool is_synced) const {
  const FileDescriptor file = FileDescriptor::open_to_change(segment.file);
  if (file.size() != segment.bytes) file.truncate(segment.bytes);  // left by an append that failed
  try {
    file.write_at(segment.bytes, entry);
    if (is_synced) file.sync();
  } catch (const UserError&) {
    try {
      file.truncate(segment.bytes);
    } catch (const UserError&) {  // the first error says more
    }
    throw;
  }
}

bool LogFolder::has_room(size_t entry_bytes) const {
  if (segments_.empty() || segments_.back().form == SegmentForm::archive) return false;
  const Segment& last = segments_.back();
  // A record that is larger than a segment should be still gets one, alone.
  return last.count == 0 || last.bytes + static_cast<int64_t>(entry_bytes) <= options_.segment_bytes;
}

void LogFolder::sync() {
  if (!is_synced_ && !segments_.empty()) FileDescriptor::open_to_change(segments_.back().file).sync();
  is_synced_ = true;
}

void LogFolder::new_segment() {
  if (segments_.empty() || segments_.back().count == 0) return;
  sync();
  start_segment();
}

/// The rules as they stood before record `index`.
ChainRules LogFolder::rules_at(uint64_t index) const {
  // A writer has kept the rules of the segments that it opened. Others are found by reading from the start of the log.
  if (const auto known = starts_.find(index); known != starts_.end()) return known->second;
  ChainRules rules = start();
  for (const Segment& segment : segments_) {
    if (rules.next_index() >= index || segment.count == 0) break;
    for_each_record(segment, run_prefix(), segment.first, [&](std::span<const std::byte> encoded, int64_t offset) {
      if (rules.next_index() >= index) return false;
      const auto decoded = decode_record(encoded);
      if (const auto* why = std::get_if<Refusal>(&decoded))
        throw_damaged(segment.file, offset, rules.next_index(), *why);
      rules.accept(std::get<Record>(decoded), encoded);
      return true;
    });
  }
  return rules;
}

void LogFolder::truncate(uint64_t size) {
  // The newest file first, and its removal synced before the next: whatever is left is the beginning of the log.
  while (!segments_.empty() && segments_.back().first >= size) {
    fs::remove(segments_.back().file);
    sync_folder(folder_);
    segments_.pop_back();
  }
  if (!segments_.empty() && segments_.back().end() > size) {
    const Segment& last = segments_.back();
    if (last.form == SegmentForm::archive) {  // a page cannot be cut: its records become a segment again
      const Bytes shorter = segment_of(last, run_prefix(), rules_at(last.first), size - last.first);
      write_bytes(folder_ / segment_name(last.first, SegmentForm::records), shorter);
      fs::remove(last.file);
    } else {
      const FileDescriptor file = FileDescriptor::open_to_change(last.file);
      file.truncate(offset_of(last, run_prefix(), size));
      file.sync();
    }
  }
  sync_folder(folder_);
  load(Repair::yes);
}

void LogFolder::compact(uint64_t index, StepLog::Compaction how) {
  // All of the log: its last segment, too, has to be one that nothing is appended to any more.
  if (index >= chain_.next_index() && !segments_.empty() && segments_.back().count > 0) start_segment();
  size_t whole = 0;  // segments that end before the index
  // The last segment is never among them: it is the one that is appended to.
  while (whole + 1 < segments_.size() && segments_[whole].end() <= index) ++whole;
  if (how == StepLog::Compaction::drop) return drop_segments(whole);
  for (size_t i = 0; i < whole; ++i)
    if (segments_[i].form == SegmentForm::records) archive(segments_[i]);
  sync_folder(folder_);
}

void LogFolder::archive(Segment& segment) {
  const fs::path file = folder_ / segment_name(segment.first, SegmentForm::archive);
  // The archive is in place, under its own name, before the segment goes: both may be there, never neither.
  write_bytes(file, archive_of(segment, run_prefix(), rules_at(segment.first)));
  fs::remove(segment.file);
  segment = as_it_is_now(segment, run_prefix());
  starts_.erase(segment.first);
}

void LogFolder::drop_segments(size_t count) {
  if (count == 0) return;
  const uint64_t start_index = segments_[count - 1].end();
  write_bytes(start_file(folder_), rules_at(start_index).save());  // from here on they are gone, whatever happens
  for (size_t i = 0; i < count; ++i) fs::remove(segments_[i].file);
  segments_.erase(segments_.begin(), segments_.begin() + static_cast<int64_t>(count));
  starts_.erase(starts_.begin(), starts_.lower_bound(start_index));
  first_index_ = start_index;
  sync_folder(folder_);
}

}  // namespace tessera
