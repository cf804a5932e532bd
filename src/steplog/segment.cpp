//   NNNNNNNN.tsb:  head of 32 bytes | u32 length, record | u32 length, record | ...       a segment
//   NNNNNNNN.tsa:  head of 32 bytes | page | page | ...                                   an archive
// NNNNNNNN is the index of the first record, so that files in order of name, up to eight digits, are files in order.

#include "steplog/segment.h"

#include <algorithm>

#include "core/crc32.h"
#include "core/error.h"
#include "steplog/wire.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr uint8_t kVersion = 1;
constexpr size_t kBufferBytes = size_t{1} << 20;

const char* extension(SegmentForm form) { return form == SegmentForm::archive ? ".tsa" : ".tsb"; }
const char* magic(SegmentForm form) { return form == SegmentForm::archive ? "TSBA" : "TSBS"; }

}  // namespace

std::string segment_name(uint64_t first, SegmentForm form) { return fmt::format("{:08}{}", first, extension(form)); }

std::optional<Segment> parse_segment_name(const fs::path& file) {
  const std::string digits = file.stem().string();
  // 19 digits are the most that surely fit 64 bits.
  if (digits.size() < 8 || digits.size() > 19 || digits.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  Segment segment;
  segment.file = file;
  segment.first = std::stoull(digits);
  if (file.extension() == extension(SegmentForm::archive))
    segment.form = SegmentForm::archive;
  else if (file.extension() != extension(SegmentForm::records))
    return std::nullopt;
  // Exactly as this program would call it: a number with more zeros in front, say, is somebody's copy.
  if (file.filename() != segment_name(segment.first, segment.form)) return std::nullopt;
  return segment;
}

Bytes file_head(SegmentForm form, uint32_t run, const ChainRules& chain) {
  ByteWriter writer;
  writer.put(std::as_bytes(std::span(magic(form), 4)));
  writer.put(uint32_t{kVersion});  // a byte and three that are 0
  writer.put(run);
  writer.put(chain.next_round());
  writer.put(chain.next_index());
  writer.put(chain.prev());
  return writer.take();
}

void check_file_head(const fs::path& file, std::span<const std::byte> found, std::span<const std::byte> expected) {
  // The first byte that differs tells which field is wrong.
  const auto [at, wanted] = std::mismatch(found.begin(), found.end(), expected.begin(), expected.end());
  if (at == found.end() && wanted == expected.end()) return;
  const auto byte = at - found.begin();
  const char* field = byte < 4    ? "magic"
                      : byte < 8  ? "version"
                      : byte < 12 ? "run"
                      : byte < 16 ? "first round"
                      : byte < 24 ? "first index"
                                  : "prev";
  throw UserError(file.string(), fmt::format("byte {}: the file's head has a wrong {}", byte, field),
                  "it is damaged or of another run; every machine of the run has the same file");
}

/// Records are some hundred bytes long and are read one after the other: a megabyte at a time, or one that is larger.
std::span<const std::byte> RecordReader::window(size_t bytes) {
  const auto buffered = static_cast<int64_t>(buffer_.size());
  if (offset_ < start_ || offset_ + static_cast<int64_t>(bytes) > start_ + buffered) {
    // Filled anew from where the reader stands: what lies before is not read again.
    const auto rest = static_cast<size_t>(end_ - offset_);
    buffer_.resize(std::min(rest, std::max(bytes, kBufferBytes)));
    buffer_.resize(file_.read_at(offset_, buffer_));
    start_ = offset_;
    if (buffer_.size() < bytes) return {};  // the file has shrunk
  }
  return std::span(buffer_).subspan(static_cast<size_t>(offset_ - start_), bytes);
}

std::optional<std::span<const std::byte>> RecordReader::next() {
  if (end_ - offset_ < 4) return std::nullopt;
  const auto prefix = window(4);
  if (prefix.empty()) return std::nullopt;
  const uint32_t length = ByteReader(prefix).get<uint32_t>();
  if (length < kRecordFrameBytes || length > end_ - offset_ - 4) return std::nullopt;  // before memory is taken for it
  const auto entry = window(4 + size_t{length});
  if (entry.empty()) return std::nullopt;
  offset_ += 4 + int64_t{length};
  return entry.subspan(4);
}

bool is_whole_record(std::span<const std::byte> bytes) {
  if (bytes.size() < kRecordFrameBytes) return false;
  const uint64_t length = kRecordFrameBytes + ByteReader(bytes.subspan(52)).get<uint32_t>();  // 52: of body_bytes
  if (length > bytes.size()) return false;
  return ByteReader(bytes.subspan(length - 4)).get<uint32_t>() == crc32c(bytes.first(length - 4));
}

// What a kill leaves is the beginning of one record with nothing behind it, which may be cut off. A whole record behind
// what cannot be read says that the file was damaged: to cut there would lose rounds that other machines have applied.
bool holds_whole_record(std::span<const std::byte> bytes) {
  constexpr std::array mark{std::byte{'T'}, std::byte{'S'}, std::byte{'B'}, std::byte{'1'}};
  // "TSB1" may also stand in a record's own bytes by chance: only a whole record with a right CRC counts.
  for (auto at = bytes.begin();; ++at) {
    at = std::search(at, bytes.end(), mark.begin(), mark.end());
    if (at == bytes.end()) return false;
    if (is_whole_record({at, bytes.end()})) return true;
  }
}

void throw_damaged(const fs::path& file, int64_t offset, uint64_t index, const Refusal& why) {
  throw UserError(
      file.string(), fmt::format("byte {}: record {} is damaged ({}: {})", offset, index, why.rule, why.detail),
      "every machine of the run has the same records: take the file from another one, or from a copy; job=replay "
      "tells up to which round the records before it go");
}

}  // namespace tessera
