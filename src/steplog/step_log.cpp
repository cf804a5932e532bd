#include "steplog/step_log.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/json.h"
#include "io/file_lock.h"
#include "io/files.h"
#include "steplog/archive.h"
#include "steplog/segment.h"
#include "steplog/wire.h"

// What a kill or a power cut can leave, and what opening makes of it:
//
//   a folder without header.json         create() goes on; open() says what is missing
//   a segment shorter than its head      a new head is written
//   a record not written to its end      cut off: its append never returned
//   an archive and its segment           the archive counts: it was renamed whole; the segment is removed
//   files before the start of the log    removed: dropping them was decided when start.tsc was written
//
// Anything else that is wrong is damage, and an error.

namespace tessera {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr milliseconds kWriterPatience{0}, kSharedPatience{30'000};

fs::path header_file(const fs::path& folder) { return folder / "header.json"; }
fs::path start_file(const fs::path& folder) { return folder / "start.tsc"; }

struct Difference {
  std::string key;
  const Json *there, *here;  // null where the key is missing
};

std::string in_words(const Json* value) { return value ? value->dump() : "missing"; }

std::optional<Difference> first_difference(const Json& there, const Json& here, const std::string& prefix) {
  if (!there.is_object() || !here.is_object()) {
    if (there.dump() == here.dump()) return std::nullopt;
    return Difference{prefix.empty() ? "header" : prefix, &there, &here};
  }
  const auto path_of = [&](const std::string& key) { return prefix.empty() ? key : prefix + "." + key; };
  for (const auto& [key, value] : there.members()) {
    const Json* other = here.find(key);
    if (!other && value.is_null()) continue;
    if (!other) return Difference{path_of(key), &value, nullptr};
    if (auto inside = first_difference(value, *other, path_of(key))) return inside;
  }
  for (const auto& [key, value] : here.members())
    if (!value.is_null() && !there.find(key)) return Difference{path_of(key), nullptr, &value};
  return std::nullopt;
}

void require_same_header(const fs::path& file, const std::string& there, const std::string& here) {
  if (there == here) return;
  const Json stored = Json::parse(there, file.string()), wanted = Json::parse(here, "the run header");
  const auto difference = first_difference(stored, wanted, "");
  const std::string what = difference
                               ? fmt::format("the log belongs to another run: \"{}\" is {} there and {} here",
                                             difference->key, in_words(difference->there), in_words(difference->here))
                               : "the log belongs to another run: the same keys and values, in another order or layout";
  throw UserError(file.string(), what, "continue with the settings that the run began with, or choose another folder");
}

}  // namespace

struct StepLog::Impl {
  Impl(fs::path where, Options wanted) : folder(std::move(where)), options(wanted), chain(wanted.limits) {}

  fs::path folder;
  Options options;
  std::string header;
  ChainRules chain;
  uint64_t first_index = 0;
  std::vector<Segment> segments;
  std::map<uint64_t, ChainRules> starts;  // a writer's: the rules where each segment of records begins
  std::vector<std::string> notices;
  std::optional<FileDescriptor> lock_file;
  std::optional<FileLock> lock;  // a writer's: as long as the log is open

  bool may_change() const { return lock.has_value(); }

  FileLock take_lock(milliseconds patience) {
    if (!lock_file) lock_file.emplace(FileDescriptor::open_or_create(folder / ".lock"));
    auto taken = FileLock::take(*lock_file, patience);
    if (!taken)
      throw UserError(folder.string(), "the log is being written by another process", "wait until that one has ended");
    return std::move(*taken);
  }

  /// A sharer's lock, for the time of one call.
  struct Locked {
    explicit Locked(Impl& of) : impl(of) { impl.lock.emplace(impl.take_lock(kSharedPatience)); }
    ~Locked() { impl.lock.reset(); }
    Impl& impl;
  };

  void read_header() {
    const fs::path file = header_file(folder);
    if (!fs::exists(file)) throw UserError(folder.string(), "is no step log: it has no header.json", "check the path");
    header = read_text_file(file);
    options.limits.run.sha256 = sha256(std::as_bytes(std::span(header)));
  }

  uint32_t run() const { return options.limits.run.prefix(); }

  ChainRules start() const {
    const fs::path file = start_file(folder);
    if (!fs::exists(file)) return ChainRules(options.limits);
    const std::string saved = read_text_file(file);
    auto restored = ChainRules::restore(options.limits, std::as_bytes(std::span(saved)));
    if (const auto* why = std::get_if<Refusal>(&restored))
      throw UserError(file.string(), fmt::format("is damaged ({}: {})", why->rule, why->detail),
                      "every machine of the run can make it again: see docs/step_log.md");
    return std::get<ChainRules>(restored);
  }

  std::vector<Segment> list_segments() {
    std::map<uint64_t, Segment> found;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      auto segment = parse_segment_name(entry.path());
      if (!segment) continue;
      auto [place, is_new] = found.try_emplace(segment->first, *segment);
      if (!is_new && segment->form == SegmentForm::archive) std::swap(place->second, *segment);
      if (!is_new && may_change()) fs::remove(segment->file);
    }
    std::vector<Segment> listed;
    for (auto& [first, segment] : found) {
      if (first >= first_index)
        listed.push_back(std::move(segment));
      else if (may_change())
        fs::remove(segment.file);
    }
    return listed;
  }

  void load() {
    chain = start();
    first_index = chain.next_index();
    segments.clear();
    starts.clear();
    const std::vector<Segment> listed = list_segments();
    for (size_t i = 0; i < listed.size(); ++i) {
      if (listed[i].first != chain.next_index())
        throw UserError(listed[i].file.string(),
                        fmt::format("begins with record {}, but the records before it end with number {}",
                                    listed[i].first, static_cast<int64_t>(chain.next_index()) - 1),
                        "a file is missing or has another name: take it from another machine of the run");
      segments.push_back(listed[i]);
      know_start(segments.back());
      follow(segments.back(), i + 1 == listed.size(), Report::notices);
    }
  }

  /// What others have appended meanwhile.
  void refresh() {
    while (true) {
      if (!segments.empty()) follow(segments.back(), true, Report::nothing);
      Segment next;
      next.first = chain.next_index();
      next.file = folder / segment_name(next.first, SegmentForm::records);
      const bool is_there_already = !segments.empty() && segments.back().first == next.first;
      if (is_there_already || !fs::exists(next.file)) return;
      segments.push_back(next);
    }
  }

  enum class Report { nothing, notices };

  /// Reads what is behind the known end of a segment; mends the tail of the last one when it may.
  void follow(Segment& segment, bool is_last, Report report) {
    if (segment.form == SegmentForm::archive) return follow_archive(segment);
    const FileDescriptor file = FileDescriptor::open_to_read(segment.file);
    // A reader may see a tail that is being mended right now; what it sees twice is so.
    for (int attempt = may_change() ? 1 : 0;; ++attempt) {
      const int64_t size = file.size();
      if (size == segment.bytes && size > 0) return;
      if (segment.bytes == 0 && !follow_head(segment, file, size, is_last)) return;
      const std::optional<Refusal> bad = follow_records(segment, file, size);
      if (!bad) return;
      Bytes rest(static_cast<size_t>(size - segment.bytes));
      rest.resize(file.read_at(segment.bytes, rest));
      // A torn record is the last thing there is.
      const bool is_torn = is_last && !holds_whole_record(std::span(rest).subspan(std::min<size_t>(rest.size(), 5)));
      if (is_torn) return mend(segment, rest, report);
      if (attempt > 0) throw_damaged(segment.file, segment.bytes, chain.next_index(), *bad);
    }
  }

  /// False when the head is not there yet.
  bool follow_head(Segment& segment, const FileDescriptor& file, int64_t size, bool is_last) {
    Bytes found(kFileHeadBytes);
    found.resize(file.read_at(0, found));
    const bool is_blank = std::all_of(found.begin(), found.end(), [](std::byte b) { return b == std::byte{0}; });
    const Bytes expected = file_head(SegmentForm::records, run(), chain);
    if (is_last && (size < kFileHeadBytes || (size == kFileHeadBytes && is_blank))) {
      if (!may_change()) return false;
      const FileDescriptor changed = FileDescriptor::open_to_change(segment.file);
      changed.truncate(0);
      changed.write_at(0, expected);
      changed.sync();
      notices.push_back(fmt::format("wrote the head of {} again", segment.file.filename().string()));
    } else {
      check_file_head(segment.file, found, expected);
    }
    segment.bytes = kFileHeadBytes;
    return true;
  }

  /// Nothing at the end of the file; else what is wrong with the record that begins at segment.bytes.
  std::optional<Refusal> follow_records(Segment& segment, const FileDescriptor& file, int64_t size) {
    if (size < segment.bytes) return std::nullopt;  // a head was written in place of a torn one
    RecordReader reader(file, segment.bytes, size);
    while (const auto encoded = reader.next()) {
      const auto decoded = decode_record(*encoded);
      if (const auto* refusal = std::get_if<Refusal>(&decoded)) {
        if (is_whole_record(*encoded)) throw_damaged(segment.file, segment.bytes, chain.next_index(), *refusal);
        return *refusal;
      }
      accept(std::get<Record>(decoded), *encoded, segment.file, segment.bytes);
      if (segment.count % kPageRecords == 0) segment.marks.push_back(segment.bytes);
      ++segment.count;
      segment.bytes = reader.offset();
    }
    if (segment.bytes == size) return std::nullopt;
    return Refusal{"length", fmt::format("the {} bytes from here on are no whole record", size - segment.bytes)};
  }

  void accept(const Record& record, std::span<const std::byte> encoded, const fs::path& file, int64_t offset) {
    if (const auto broken = chain.refuses(record)) throw_damaged(file, offset, chain.next_index(), *broken);
    chain.accept(record, encoded);
  }

  /// A record that is there to its end, with a wrong checksum: no kill leaves that, a damaged disk does.
  static bool is_whole_but_damaged(std::span<const std::byte> rest) {
    if (rest.size() < 4 + kRecordFrameBytes) return false;
    const bool is_blank = std::all_of(rest.begin() + 4, rest.end(), [](std::byte b) { return b == std::byte{0}; });
    const uint64_t told = 4 + uint64_t{ByteReader(rest).get<uint32_t>()};
    const uint64_t own = 4 + kRecordFrameBytes + uint64_t{ByteReader(rest.subspan(4 + 52)).get<uint32_t>()};
    return !is_blank && (rest.size() == told || rest.size() == own);
  }

  void mend(const Segment& segment, std::span<const std::byte> rest, Report report) {
    const std::string name = segment.file.filename().string();
    const bool is_damaged = is_whole_but_damaged(rest);
    if (may_change()) {
      const FileDescriptor file = FileDescriptor::open_to_change(segment.file);
      file.truncate(segment.bytes);
      file.sync();
      notices.push_back(is_damaged
                            ? fmt::format("cut {} bytes of a damaged record off {}: its checksum is wrong; what it "
                                          "said is taken from another machine of the run, or worked out anew",
                                          rest.size(), name)
                            : fmt::format("cut {} bytes of a torn record off {}", rest.size(), name));
    } else if (report == Report::notices) {
      notices.push_back(fmt::format("left {} bytes of {} record at the end of {}", rest.size(),
                                    is_damaged ? "a damaged" : "an unfinished", name));
    }
  }

  void follow_archive(Segment& segment) {
    const FileDescriptor file = FileDescriptor::open_to_read(segment.file);
    const int64_t size = file.size();
    if (size == segment.bytes) return;
    Bytes head(kFileHeadBytes);
    head.resize(file.read_at(0, head));
    check_file_head(segment.file, head, file_head(SegmentForm::archive, run(), chain));
    for (segment.bytes = kFileHeadBytes; segment.bytes < size;) {
      const Page page = read_page(segment, file, segment.bytes, size);
      if (segment.count % kPageRecords != 0)
        throw_damaged(segment.file, segment.bytes, chain.next_index(), {"length", "a short page is not the last"});
      for (const Bytes& encoded : page.records)
        accept(std::get<Record>(decode_record(encoded)), encoded, segment.file, segment.bytes);
      segment.marks.push_back(segment.bytes);
      segment.count += page.records.size();
      segment.bytes += page.bytes;
    }
  }

  Page read_page(const Segment& segment, const FileDescriptor& file, int64_t offset, int64_t end) const {
    Bytes bytes(static_cast<size_t>(std::min<int64_t>(end - offset, kPageHeadBytes)));
    bytes.resize(file.read_at(offset, bytes));
    bytes.resize(static_cast<size_t>(std::min<int64_t>(end - offset, page_bytes(bytes))));
    bytes.resize(file.read_at(offset, bytes));
    auto page = decode_page(bytes, run());
    if (const auto* why = std::get_if<Refusal>(&page)) {
      const auto pages_before =
          std::lower_bound(segment.marks.begin(), segment.marks.end(), offset) - segment.marks.begin();
      throw_damaged(segment.file, offset, segment.first + static_cast<uint64_t>(pages_before) * kPageRecords, *why);
    }
    return std::move(std::get<Page>(page));
  }

  /// Calls use(encoded, offset) for the records of a segment from `index` on, until it returns false.
  using Use = std::function<bool(std::span<const std::byte> encoded, int64_t offset)>;
  bool visit(const Segment& segment, uint64_t index, const Use& use) const {
    const FileDescriptor file = FileDescriptor::open_to_read(segment.file);
    const uint64_t skipped_marks = (index - segment.first) / kPageRecords;
    uint64_t at = segment.first + skipped_marks * kPageRecords;
    int64_t offset = segment.marks[skipped_marks];
    if (segment.form == SegmentForm::archive) {
      for (; offset < segment.bytes;) {
        const Page page = read_page(segment, file, offset, segment.bytes);
        for (const Bytes& encoded : page.records)
          if (at++ >= index && !use(encoded, offset)) return false;
        offset += page.bytes;
      }
      return true;
    }
    RecordReader reader(file, offset, segment.bytes);
    for (; at < segment.end(); ++at) {
      offset = reader.offset();
      const auto encoded = reader.next();
      if (!encoded) throw_damaged(segment.file, offset, at, {"length", "its length has changed since it was read"});
      if (at >= index && !use(*encoded, offset)) return false;
    }
    return true;
  }

  /// A reader's knowledge of a segment that was turned into an archive since.
  Segment as_it_is_now(const Segment& segment) const {
    if (segment.form == SegmentForm::archive || fs::exists(segment.file)) return segment;
    Segment archive;
    archive.form = SegmentForm::archive;
    archive.first = segment.first;
    archive.count = segment.count;
    archive.file = folder / segment_name(segment.first, archive.form);
    const FileDescriptor file = FileDescriptor::open_to_read(archive.file);
    archive.bytes = file.size();
    for (int64_t offset = kFileHeadBytes; offset < archive.bytes;) {
      archive.marks.push_back(offset);
      offset += read_page(archive, file, offset, archive.bytes).bytes;
    }
    return archive;
  }

  void start_segment() {
    Segment segment;
    segment.first = chain.next_index();
    segment.file = folder / segment_name(segment.first, segment.form);
    const FileDescriptor file = FileDescriptor::create(segment.file);
    file.write(file_head(segment.form, run(), chain));
    file.sync();
    sync_folder(folder);
    segment.bytes = kFileHeadBytes;
    segments.push_back(segment);
    know_start(segment);
  }

  /// The chain is where the segment begins. Compacting it later need not read what lies before.
  void know_start(const Segment& segment) {
    const bool is_writer = options.access == Access::write;
    if (is_writer && segment.form == SegmentForm::records) starts.insert_or_assign(segment.first, chain);
  }

  /// The whole file of an archive that holds what a segment holds, one page after the other.
  Bytes archived(const Segment& segment, ChainRules before) const {
    ByteWriter writer;
    writer.put(std::span<const std::byte>(file_head(SegmentForm::archive, run(), before)));
    std::vector<Bytes> page;
    uint32_t next_round = before.next_round(), round_of_page = next_round;
    const auto flush = [&] {
      if (page.empty()) return;
      const Bytes bytes = encode_page(page, round_of_page);
      const auto back = decode_page(bytes, run());
      TS_CHECK(std::holds_alternative<Page>(back) && std::get<Page>(back).records == page,
               "records of \"{}\" do not come back from their page", segment.file.string());
      writer.put(std::span<const std::byte>(bytes));
      page.clear();
      round_of_page = next_round;
    };
    visit(segment, segment.first, [&](std::span<const std::byte> encoded, int64_t offset) {
      const auto decoded = decode_record(encoded);
      if (const auto* why = std::get_if<Refusal>(&decoded))
        throw_damaged(segment.file, offset, segment.first + page.size(), *why);
      page.emplace_back(encoded.begin(), encoded.end());
      if (std::get<Record>(decoded).type == RecordType::round) ++next_round;
      if (page.size() == kPageRecords) flush();
      return true;
    });
    flush();
    return writer.take();
  }

  /// The rules as they stood before record `index`.
  ChainRules rules_at(uint64_t index) const {
    if (const auto known = starts.find(index); known != starts.end()) return known->second;
    ChainRules rules = start();
    for (const Segment& segment : segments) {
      if (rules.next_index() >= index || segment.count == 0) break;
      visit(segment, segment.first, [&](std::span<const std::byte> encoded, int64_t offset) {
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

  void write_bytes(const fs::path& file, const Bytes& bytes) const {
    write_file_atomically(file, [&](const fs::path& temporary) { FileDescriptor::create(temporary).write(bytes); });
  }

  void archive(const Segment& segment) {
    const fs::path file = folder / segment_name(segment.first, SegmentForm::archive);
    write_bytes(file, archived(segment, rules_at(segment.first)));
    fs::remove(segment.file);
  }

  /// The first `count` records of an archive, as a segment in its place.
  void unarchive(const Segment& segment, uint64_t count) {
    ByteWriter writer;
    writer.put(std::span<const std::byte>(file_head(SegmentForm::records, run(), rules_at(segment.first))));
    visit(segment, segment.first, [&](std::span<const std::byte> encoded, int64_t) {
      if (count-- == 0) return false;
      writer.put(static_cast<uint32_t>(encoded.size()));
      writer.put(encoded);
      return true;
    });
    write_bytes(folder / segment_name(segment.first, SegmentForm::records), writer.bytes());
    fs::remove(segment.file);
  }

  /// From the back, so that a kill leaves a shorter log and not one with a hole.
  void truncate(uint64_t size) {
    while (!segments.empty() && segments.back().first >= size) {
      fs::remove(segments.back().file);
      sync_folder(folder);
      segments.pop_back();
    }
    if (!segments.empty() && segments.back().end() > size) {
      const Segment& last = segments.back();
      if (last.form == SegmentForm::archive) {
        unarchive(last, size - last.first);
      } else {
        const FileDescriptor file = FileDescriptor::open_to_change(last.file);
        file.truncate(offset_of(last, size));
        file.sync();
      }
    }
    sync_folder(folder);
    load();
  }

  int64_t offset_of(const Segment& segment, uint64_t index) const {
    int64_t found = segment.bytes;
    visit(segment, index, [&](std::span<const std::byte>, int64_t offset) {
      found = offset;
      return false;
    });
    return found;
  }

  /// Costs what the segments that it changes hold, however long the log is.
  void compact(uint64_t index, Compaction how) {
    if (index >= chain.next_index() && !segments.empty() && segments.back().count > 0) start_segment();
    size_t whole = 0;  // segments that end before the index
    while (whole + 1 < segments.size() && segments[whole].end() <= index) ++whole;
    if (how == Compaction::drop) return drop(whole);
    for (size_t i = 0; i < whole; ++i) {
      if (segments[i].form == SegmentForm::archive) continue;
      archive(segments[i]);
      segments[i] = as_it_is_now(segments[i]);
      starts.erase(segments[i].first);
    }
    sync_folder(folder);
  }

  void drop(size_t count) {
    if (count == 0) return;
    const uint64_t start_index = segments[count - 1].end();
    write_bytes(start_file(folder), rules_at(start_index).save());  // from here on they are gone, whatever happens
    for (size_t i = 0; i < count; ++i) fs::remove(segments[i].file);
    segments.erase(segments.begin(), segments.begin() + static_cast<int64_t>(count));
    starts.erase(starts.begin(), starts.lower_bound(start_index));
    first_index = start_index;
    sync_folder(folder);
  }

  void sync() const {
    if (!options.sync_appends && !segments.empty()) FileDescriptor::open_to_change(segments.back().file).sync();
  }

  void new_segment() {
    if (segments.empty() || segments.back().count == 0) return;
    sync();
    start_segment();
  }

  bool has_room(size_t entry_bytes) const {
    if (segments.empty() || segments.back().form == SegmentForm::archive) return false;
    const Segment& last = segments.back();
    return last.count == 0 || last.bytes + static_cast<int64_t>(entry_bytes) <= options.segment_bytes;
  }

  void append(std::span<const std::byte> encoded) {
    auto decoded = decode_record(encoded);
    auto* refusal = std::get_if<Refusal>(&decoded);
    std::optional<Refusal> broken = refusal ? std::optional(*refusal) : chain.refuses(std::get<Record>(decoded));
    if (broken)
      throw UserError(folder.string(), fmt::format("record {} breaks the rule \"{}\": {}", chain.next_index(),
                                                   broken->rule, broken->detail));
    ByteWriter entry;
    entry.put(static_cast<uint32_t>(encoded.size()));
    entry.put(encoded);
    if (!has_room(entry.bytes().size())) {
      sync();
      start_segment();
    }
    write_entry(segments.back(), entry.bytes());
    if (segments.back().count % kPageRecords == 0) segments.back().marks.push_back(segments.back().bytes);
    ++segments.back().count;
    segments.back().bytes += static_cast<int64_t>(entry.bytes().size());
    chain.accept(std::get<Record>(decoded), encoded);
  }

  /// The whole entry on the disk, or an error and the file as it was (as far as it can be made so).
  void write_entry(const Segment& segment, const Bytes& entry) {
    const FileDescriptor file = FileDescriptor::open_to_change(segment.file);
    if (file.size() != segment.bytes) file.truncate(segment.bytes);  // left by an append that failed
    try {
      file.write_at(segment.bytes, entry);
      if (options.sync_appends) file.sync();
    } catch (const UserError&) {
      try {
        file.truncate(segment.bytes);
      } catch (const UserError&) {  // the first error says more
      }
      throw;
    }
  }
};

StepLog::StepLog(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StepLog::StepLog(StepLog&&) noexcept = default;
StepLog::~StepLog() = default;

StepLog StepLog::create(const fs::path& folder, const std::string& header_json, Options options) {
  if (options.access == Access::read && !fs::exists(header_file(folder))) return open(folder, options);
  create_folder(folder);
  {
    Impl making(folder, options);
    std::optional<FileLock> lock;
    if (options.access != Access::read)
      lock.emplace(making.take_lock(options.access == Access::write ? kWriterPatience : kSharedPatience));
    const fs::path file = header_file(folder);
    if (fs::exists(file)) {
      require_same_header(file, read_text_file(file), header_json);
    } else {
      for (const fs::directory_entry& entry : fs::directory_iterator(folder))
        if (parse_segment_name(entry.path()))
          throw UserError(folder.string(), "has records but no header.json",
                          "take header.json from another machine of the run");
      remove_temporaries(folder);
      write_text_file(file, header_json);
    }
  }
  return open(folder, options);
}

StepLog StepLog::open(const fs::path& folder, Options options) {
  auto impl = std::make_unique<Impl>(folder, options);
  impl->read_header();
  if (options.access == Access::write) impl->lock.emplace(impl->take_lock(kWriterPatience));
  if (options.access == Access::shared) impl->lock.emplace(impl->take_lock(kSharedPatience));
  if (impl->may_change()) remove_temporaries(folder);
  if (impl->lock)
    if (const std::string notice = impl->lock->notice(); !notice.empty()) impl->notices.push_back(notice);
  impl->load();
  if (options.access == Access::shared) impl->lock.reset();
  return StepLog(std::move(impl));
}

const std::string& StepLog::header() const { return impl_->header; }
const RunId& StepLog::run() const { return impl_->options.limits.run; }
const ChainRules& StepLog::chain() const { return impl_->chain; }
const std::vector<std::string>& StepLog::notices() const { return impl_->notices; }
uint64_t StepLog::first_index() const { return impl_->first_index; }
uint64_t StepLog::size() const { return impl_->chain.next_index(); }

int64_t StepLog::bytes_on_disk() const {
  int64_t bytes = 0;
  for (const Segment& segment : impl_->segments) bytes += segment.bytes;
  return bytes;
}

void StepLog::append(std::span<const std::byte> record) {
  TS_CHECK(impl_->options.access == Access::write, "the log is not open for one writer");
  impl_->append(record);
}

void StepLog::sync() const { impl_->sync(); }

void StepLog::new_segment() { impl_->new_segment(); }

void StepLog::refresh() {
  if (impl_->options.access != Access::write) impl_->refresh();
}

bool StepLog::append_if(uint64_t expected, std::span<const std::byte> record) {
  TS_CHECK(impl_->options.access == Access::shared, "the log is not open for shared appending");
  const Impl::Locked locked(*impl_);
  impl_->refresh();
  if (size() != expected) return false;
  impl_->append(record);
  return true;
}

void StepLog::truncate(uint64_t size) {
  TS_CHECK(impl_->options.access == Access::write, "the log is not open for one writer");
  if (size >= this->size()) return;
  if (size < first_index())
    throw UserError(impl_->folder.string(),
                    fmt::format("cannot go back to {} records: the log was compacted and begins with record {}", size,
                                first_index()));
  impl_->truncate(size);
}

std::vector<std::byte> StepLog::start_state() const { return first_index() > 0 ? impl_->start().save() : Bytes{}; }

void StepLog::begin_at(std::span<const std::byte> state) {
  TS_CHECK(impl_->options.access == Access::write, "the log is not open for one writer");
  const auto rules = ChainRules::restore(impl_->options.limits, state);
  TS_CHECK(std::holds_alternative<ChainRules>(rules) && std::get<ChainRules>(rules).next_index() > size(),
           "a log of {} records cannot begin where it is told to", size());
  impl_->write_bytes(start_file(impl_->folder), Bytes(state.begin(), state.end()));
  impl_->load();  // removes what lies before
}

void StepLog::compact(uint64_t index, Compaction how) {
  TS_CHECK(impl_->options.access == Access::write, "the log is not open for one writer");
  impl_->compact(index, how);
}

void StepLog::for_each(uint64_t index,
                       const std::function<bool(const Record&, std::span<const std::byte>)>& use) const {
  if (index < impl_->first_index)
    throw UserError(impl_->folder.string(),
                    fmt::format("record {} is not there: the log was compacted and begins with record {}", index,
                                impl_->first_index),
                    "begin with a snapshot, or take the records from another machine of the run");
  std::optional<uint64_t> prev;
  uint64_t at = index;
  for (const Segment& known : impl_->segments) {
    if (at >= known.end()) continue;
    const Segment segment = impl_->as_it_is_now(known);
    const bool go_on = impl_->visit(segment, at, [&](std::span<const std::byte> encoded, int64_t offset) {
      const auto decoded = decode_record(encoded);
      if (const auto* why = std::get_if<Refusal>(&decoded)) throw_damaged(segment.file, offset, at, *why);
      const Record& record = std::get<Record>(decoded);
      if (record.index != at || (prev && record.prev != *prev))
        throw_damaged(segment.file, offset, at, {"prev", "it does not follow the record before it"});
      prev = chain_hash(encoded);
      ++at;
      return use(record, encoded);
    });
    if (!go_on) return;
  }
}

}  // namespace tessera
