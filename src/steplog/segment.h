#pragma once
// One file of a step log: a segment (records as they are) or an archive (pages of 256). Page: docs/step_log.md.

#include <functional>

#include "io/file_descriptor.h"
#include "steplog/chain_rules.h"

namespace tessera {

// A file's head: 4 letters | u32 version | u32 run | u32 round and u64 index that come first in it | u64 prev of that
// record.
constexpr int64_t kFileHeadBytes = 32;
// Records that share the head of a page, and the distance of marks in files of either form.
constexpr uint64_t kPageRecords = 256;

enum class SegmentForm { records, archive };  // NNNNNNNN.tsb, NNNNNNNN.tsa

/// What is known of a file: its first records, up to `bytes`, were read and found good.
struct Segment {
  std::filesystem::path file;
  SegmentForm form = SegmentForm::records;
  // Index of its first record, and how many were read.
  uint64_t first = 0, count = 0;
  int64_t bytes = 0;
  std::vector<int64_t> marks;  // where every 256th record (form records) or each page (archive) begins
  uint64_t end() const { return first + count; }
};

std::string segment_name(uint64_t first, SegmentForm);
/// The segment that a file of this name is, or nothing.
std::optional<Segment> parse_segment_name(const std::filesystem::path&);

/// The first 32 bytes of the file that begins where `chain` is now.
Bytes file_head(SegmentForm, uint32_t run, const ChainRules& chain);
/// @throws UserError naming the file and the offset of the first difference
void check_file_head(const std::filesystem::path&, std::span<const std::byte> found,
                     std::span<const std::byte> expected);

/// Reads the length-prefixed records of a segment's bytes [offset, end).
class RecordReader {
 public:
  RecordReader(const FileDescriptor& file, int64_t offset, int64_t end) : file_(file), offset_(offset), end_(end) {}
  /// The next record, until the next call. Nothing at the end, or where the length says that no whole record is there.
  std::optional<std::span<const std::byte>> next();
  /// Where the entry begins that next() will read, or could not.
  int64_t offset() const { return offset_; }

 private:
  std::span<const std::byte> window(size_t bytes);  // from offset_ on
  const FileDescriptor& file_;
  int64_t offset_, end_, start_ = 0;  // start_: of the buffer
  Bytes buffer_;
};

/// Whether a record, of any version, begins these bytes: by its own length and CRC.
bool is_whole_record(std::span<const std::byte>);
/// Whether one begins somewhere in them.
bool holds_whole_record(std::span<const std::byte>);

/// "byte 350 of the file: record 12 is damaged (crc: ...)".
[[noreturn]] void throw_damaged(const std::filesystem::path&, int64_t offset, uint64_t index, const Refusal&);

}  // namespace tessera
