// Three things are told apart at the end of a log:
//
//   the beginning of a record, nothing behind it        a kill leaves it: cut off
//   a whole last record whose CRC is wrong              a damaged disk leaves it: cut off, and told as damage
//   anything unreadable with a whole record behind it   an error: cutting there would lose rounds that others applied

#include "steplog/following.h"

#include <algorithm>

#include "core/error.h"
#include "steplog/segment_records.h"
#include "steplog/wire.h"

namespace tessera {
namespace {

bool is_blank(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

/// A record that is there to its end, with a wrong checksum: no kill leaves that, a damaged disk does.
bool is_whole_but_damaged(std::span<const std::byte> rest) {
  // Where the length in front says that the record ends, and where its own head does (flags stand at byte 6, the body's
  // length at byte 52): a kill leaves less than either, a damaged byte leaves all of them.
  if (rest.size() < 4 + kRecordFrameBytes) return false;
  const uint64_t told = 4 + uint64_t{ByteReader(rest).get<uint32_t>()};
  const bool is_signed = ByteReader(rest.subspan(4 + 6)).get<uint16_t>() & kIsSigned;
  const uint64_t own = 4 + kRecordFrameBytes + uint64_t{ByteReader(rest.subspan(4 + 52)).get<uint32_t>()} +
                       (is_signed ? kSignatureBytes : 0);
  return !is_blank(rest.subspan(4)) && (rest.size() == told || rest.size() == own);
}

}  // namespace

void SegmentFollower::follow(Segment& segment, bool is_last) {
  if (segment.form == SegmentForm::archive) return follow_archive(segment);
  const FileDescriptor file = FileDescriptor::open_to_read(segment.file);
  // A reader may see a tail that is being mended right now; what it sees twice is so.
  for (int attempt = repair_ == Repair::yes ? 1 : 0;; ++attempt) {
    const int64_t size = file.size();
    if (size == segment.bytes && size > 0) return;
    if (segment.bytes == 0 && !follow_head(segment, file, size, is_last)) return;
    const std::optional<Refusal> bad = follow_records(segment, file, size);
    if (!bad) return;
    Bytes rest(static_cast<size_t>(size - segment.bytes));
    rest.resize(file.read_at(segment.bytes, rest));
    // A torn record is the last thing there is.
    // The search begins behind the length and the first byte of this record's own magic, or it would find itself.
    const bool is_torn = is_last && !holds_whole_record(std::span(rest).subspan(std::min<size_t>(rest.size(), 5)));
    if (is_torn) return mend_tail(segment, rest);
    if (attempt > 0) throw_damaged(segment.file, segment.bytes, chain_.next_index(), *bad);
  }
}

/// False when the head is not there yet.
bool SegmentFollower::follow_head(Segment& segment, const FileDescriptor& file, int64_t size, bool is_last) {
  Bytes found(kFileHeadBytes);
  found.resize(file.read_at(0, found));
  // What the head has to be follows from the chain so far: a file of another run, or in another's place, shows here.
  const Bytes expected = file_head(SegmentForm::records, run_, chain_);
  // After a power cut a file may have its length and zeros in place of its bytes.
  if (is_last && (size < kFileHeadBytes || (size == kFileHeadBytes && is_blank(found)))) {
    if (repair_ == Repair::no) return false;
    const FileDescriptor changed = FileDescriptor::open_to_change(segment.file);
    changed.truncate(0);
    changed.write_at(0, expected);
    // Synced before records follow: without its head the file would be damage, not a torn end.
    changed.sync();
    notices_.push_back(fmt::format("wrote the head of {} again", segment.file.filename().string()));
  } else {
    check_file_head(segment.file, found, expected);
  }
  segment.bytes = kFileHeadBytes;
  return true;
}

/// Nothing at the end of the file; else what is wrong with the record that begins at segment.bytes.
std::optional<Refusal> SegmentFollower::follow_records(Segment& segment, const FileDescriptor& file, int64_t size) {
  if (size < segment.bytes) return std::nullopt;  // a head was written in place of a torn one
  RecordReader reader(file, segment.bytes, size);
  while (const auto encoded = reader.next()) {
    const auto decoded = decode_record(*encoded);
    if (const auto* refusal = std::get_if<Refusal>(&decoded)) {
      // Its CRC is right, and it is refused for what it says: no kill leaves that.
      if (is_whole_record(*encoded)) throw_damaged(segment.file, segment.bytes, chain_.next_index(), *refusal);
      return *refusal;
    }
    accept(std::get<Record>(decoded), *encoded, segment);
    // Marks let a reader begin within 256 records of any index.
    if (segment.count % kPageRecords == 0) segment.marks.push_back(segment.bytes);
    ++segment.count;
    segment.bytes = reader.offset();
  }
  if (segment.bytes == size) return std::nullopt;
  return Refusal{"length", fmt::format("the {} bytes from here on are no whole record", size - segment.bytes)};
}

void SegmentFollower::accept(const Record& record, std::span<const std::byte> encoded, const Segment& segment) {
  // A good record at a wrong place in the chain is damage too.
  if (const auto broken = chain_.refuses(record))
    throw_damaged(segment.file, segment.bytes, chain_.next_index(), *broken);
  chain_.accept(record, encoded);
}

void SegmentFollower::mend_tail(const Segment& segment, std::span<const std::byte> rest) {
  const std::string name = segment.file.filename().string();
  const bool is_damaged = is_whole_but_damaged(rest);
  if (repair_ == Repair::yes) {
    const FileDescriptor file = FileDescriptor::open_to_change(segment.file);
    file.truncate(segment.bytes);
    file.sync();
    notices_.push_back(is_damaged
                           ? fmt::format("cut {} bytes of a damaged record off {}: its checksum is wrong; what it "
                                         "said is taken from another machine of the run, or worked out anew",
                                         rest.size(), name)
                           : fmt::format("cut {} bytes of a torn record off {}", rest.size(), name));
  } else if (unfinished_ == Unfinished::told) {
    notices_.push_back(fmt::format("left {} bytes of {} record at the end of {}", rest.size(),
                                   is_damaged ? "a damaged" : "an unfinished", name));
  }
}

void SegmentFollower::follow_archive(Segment& segment) {
  const FileDescriptor file = FileDescriptor::open_to_read(segment.file);
  const int64_t size = file.size();
  if (size == segment.bytes) return;
  Bytes head(kFileHeadBytes);
  head.resize(file.read_at(0, head));
  check_file_head(segment.file, head, file_head(SegmentForm::archive, run_, chain_));
  for (segment.bytes = kFileHeadBytes; segment.bytes < size;) {
    const Page page = read_page(segment, run_, file, segment.bytes, size);
    // Marks are counted off by 256: only the last page may hold fewer.
    if (segment.count % kPageRecords != 0)
      throw_damaged(segment.file, segment.bytes, chain_.next_index(), {"length", "a short page is not the last"});
    for (const Bytes& encoded : page.records) accept(std::get<Record>(decode_record(encoded)), encoded, segment);
    segment.marks.push_back(segment.bytes);
    segment.count += page.records.size();
    segment.bytes += page.bytes;
  }
}

}  // namespace tessera
