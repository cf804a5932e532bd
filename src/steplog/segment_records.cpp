// Records by their number, whichever form their file has. A mark (Segment::marks) is the place of every 256th record,
// so that 255 are read in vain at most: in an archive the 256 of one page are unpacked together anyway.

#include "steplog/segment_records.h"

#include <algorithm>

#include "core/error.h"
#include "steplog/wire.h"

namespace tessera {
namespace fs = std::filesystem;

Page read_page(const Segment& segment, uint32_t run, const FileDescriptor& file, int64_t offset, int64_t end) {
  // The head first, which says how long the page is; then all of it. A damaged length is bounded by the file's end.
  Bytes bytes(static_cast<size_t>(std::min<int64_t>(end - offset, kPageHeadBytes)));
  bytes.resize(file.read_at(offset, bytes));
  bytes.resize(static_cast<size_t>(std::min<int64_t>(end - offset, page_bytes(bytes))));
  bytes.resize(file.read_at(offset, bytes));
  auto page = decode_page(bytes, run);
  if (const auto* why = std::get_if<Refusal>(&page)) {
    // How many records lie before the damage: every page before this one is full.
    const auto pages_before =
        std::lower_bound(segment.marks.begin(), segment.marks.end(), offset) - segment.marks.begin();
    throw_damaged(segment.file, offset, segment.first + static_cast<uint64_t>(pages_before) * kPageRecords, *why);
  }
  return std::move(std::get<Page>(page));
}

bool for_each_record(const Segment& segment, uint32_t run, uint64_t index, const UseRecord& use) {
  const FileDescriptor file = FileDescriptor::open_to_read(segment.file);
  // From the mark at or before the record: those between are read and passed over.
  const uint64_t skipped_marks = (index - segment.first) / kPageRecords;
  uint64_t at = segment.first + skipped_marks * kPageRecords;
  int64_t offset = segment.marks[skipped_marks];
  if (segment.form == SegmentForm::archive) {
    for (; offset < segment.bytes;) {
      const Page page = read_page(segment, run, file, offset, segment.bytes);
      for (const Bytes& encoded : page.records)
        if (at++ >= index && !use(encoded, offset)) return false;
      offset += page.bytes;
    }
    return true;
  }
  RecordReader reader(file, offset, segment.bytes);
  for (; at < segment.end(); ++at) {
    // Before next(), which moves on: where this record begins.
    offset = reader.offset();
    const auto encoded = reader.next();
    if (!encoded) throw_damaged(segment.file, offset, at, {"length", "its length has changed since it was read"});
    if (at >= index && !use(*encoded, offset)) return false;
  }
  return true;
}

int64_t offset_of(const Segment& segment, uint32_t run, uint64_t index) {
  int64_t found = segment.bytes;
  for_each_record(segment, run, index, [&](std::span<const std::byte>, int64_t offset) {
    found = offset;
    return false;
  });
  return found;
}

// Another process may have compacted the log since its files were listed.
// The records are the same, their places others.
Segment as_it_is_now(const Segment& segment, uint32_t run) {
  if (segment.form == SegmentForm::archive || fs::exists(segment.file)) return segment;
  Segment archive;
  archive.form = SegmentForm::archive;
  archive.first = segment.first;
  archive.count = segment.count;
  // It was renamed into place whole, so that all of it may be read and counted.
  archive.file = segment.file.parent_path() / segment_name(segment.first, archive.form);
  const FileDescriptor file = FileDescriptor::open_to_read(archive.file);
  archive.bytes = file.size();
  for (int64_t offset = kFileHeadBytes; offset < archive.bytes;) {
    archive.marks.push_back(offset);
    offset += read_page(archive, run, file, offset, archive.bytes).bytes;
  }
  return archive;
}

Bytes archive_of(const Segment& segment, uint32_t run, const ChainRules& before) {
  ByteWriter writer;
  writer.put(std::span<const std::byte>(file_head(SegmentForm::archive, run, before)));
  std::vector<Bytes> page;
  // What the page's first record is expected to say of its round: a round that says so leaves it out.
  uint32_t next_round = before.next_round(), round_of_page = next_round;
  const auto flush = [&] {
    if (page.empty()) return;
    const Bytes bytes = encode_page(page, round_of_page);
    // The segment is removed once the archive is there: what it says has to be known to come back, to the byte.
    const auto back = decode_page(bytes, run);
    TS_CHECK(std::holds_alternative<Page>(back) && std::get<Page>(back).records == page,
             "records of \"{}\" do not come back from their page", segment.file.string());
    writer.put(std::span<const std::byte>(bytes));
    page.clear();
    round_of_page = next_round;
  };
  for_each_record(segment, run, segment.first, [&](std::span<const std::byte> encoded, int64_t offset) {
    const auto decoded = decode_record(encoded);
    if (const auto* why = std::get_if<Refusal>(&decoded))
      throw_damaged(segment.file, offset, segment.first + page.size(), *why);
    page.emplace_back(encoded.begin(), encoded.end());
    if (std::get<Record>(decoded).type == RecordType::round) ++next_round;
    // Pages are full but for the last one, so that a record's page follows from its number.
    if (page.size() == kPageRecords) flush();
    return true;
  });
  flush();
  return writer.take();
}

Bytes segment_of(const Segment& archive, uint32_t run, const ChainRules& before, uint64_t count) {
  ByteWriter writer;
  writer.put(std::span<const std::byte>(file_head(SegmentForm::records, run, before)));
  for_each_record(archive, run, archive.first, [&](std::span<const std::byte> encoded, int64_t) {
    if (count-- == 0) return false;
    // The length stands in front of each record in a segment; in a page it follows from the fields.
    writer.put(static_cast<uint32_t>(encoded.size()));
    writer.put(encoded);
    return true;
  });
  return writer.take();
}

}  // namespace tessera
