#include "steplog/archive.h"

#include <algorithm>

#include "core/crc32.h"
#include "core/error.h"
#include "steplog/wire.h"

// A record in a page: a tag byte, then only what the tag does not cover.
// Run, index, prev and the CRC follow from the place; a signature, which follows from nothing, stands behind the body.
//
//   bits 0-2 type
//   bit 3    alpha is that of the record before
//   bit 4    flags, mul, unit_exp, m and lanes are those of the record before
//   bit 5    every lane is present; the bitmap is left out
//   bit 6    the body is of a length of its own: roster changes, extra groups, or no round
//   bit 7    round and seed round are not the next round

namespace tessera {
namespace {

// Little-endian, so that the file begins with these letters.
constexpr uint32_t kMagic = 0x50425354;  // "TSBP"
constexpr uint8_t kVersion = 1;
constexpr uint8_t kTypeMask = 7, kSameAlpha = 8, kSameForm = 16, kAllPresent = 32, kOwnBody = 64, kOwnRounds = 128;

/// Of one sign for varints: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
uint64_t zigzag(uint32_t from, uint32_t to) {
  const int64_t difference = int64_t{to} - from;
  return difference >= 0 ? static_cast<uint64_t>(difference) * 2 : static_cast<uint64_t>(-difference) * 2 - 1;
}
uint32_t unzigzag(uint32_t from, uint64_t code) {
  // More than any difference of two 32-bit numbers: refused before it is used in a sum.
  if (code > uint64_t{UINT32_MAX} * 2) refuse("varint", fmt::format("a difference of rounds of {}", code));
  const auto half = static_cast<int64_t>(code / 2);
  const int64_t to = from + (code % 2 ? -half - 1 : half);
  if (to < 0 || to > UINT32_MAX) refuse("round", fmt::format("round {}", to));
  return static_cast<uint32_t>(to);
}

/// Floats are compared as bits: what is left out comes back to the bit, whether it is a zero with a sign or a NaN.
uint32_t bits(float value) { return std::bit_cast<uint32_t>(value); }

bool same_form(const Record& a, const Record& b) {
  return a.flags == b.flags && bits(a.mul) == bits(b.mul) && a.unit_exp == b.unit_exp && a.m == b.m &&
         a.lanes == b.lanes;
}

size_t bitmap_bytes(const Record& head) { return (size_t{head.lanes} + 7) / 8; }

/// The bitmap of `lanes` lanes that are all present.
Bytes full_bitmap(const Record& head) {
  ByteWriter writer;
  writer.put_bits(std::vector<bool>(head.lanes, true));
  return writer.take();
}

size_t count_bits(std::span<const std::byte> bytes) {
  size_t count = 0;
  for (std::byte byte : bytes) count += static_cast<size_t>(std::popcount(std::to_integer<unsigned>(byte)));
  return count;
}

/// Bytes behind the bitmap of a round without extra groups.
size_t plain_bytes(const Record& head, size_t present) {
  return present * head.m + (head.flags & kHasLosses ? present * 2 : 0);
}

/// What both directions know before a record.
struct Context {
  Record before;  // the head of the record before
  uint32_t next_round = 0;
  void pass(const Record& head) {
    before = head;
    if (head.type == RecordType::round) ++next_round;
  }
};

void put_record(ByteWriter& writer, std::span<const std::byte> encoded, Context& context) {
  const RecordParts parts = take_apart(encoded);
  const Record& head = parts.head;
  const auto roster = parts.body.first(parts.roster_bytes);
  const auto bitmap = parts.body.subspan(roster.size(), bitmap_bytes(head));
  const auto rest = parts.body.subspan(roster.size() + bitmap.size());
  // Any other body has a length that does not follow from its head, and says it.
  const bool own_body = head.type != RecordType::round || parts.roster_bytes || parts.extra_groups;
  const bool own_rounds = head.round != context.next_round || head.seed_round != context.next_round;
  const bool all_present = std::ranges::equal(bitmap, full_bitmap(head));
  const bool same_alpha = bits(head.alpha) == bits(context.before.alpha), form = same_form(head, context.before);
  writer.put(static_cast<uint8_t>(static_cast<uint8_t>(head.type) | (same_alpha ? kSameAlpha : 0) |
                                  (form ? kSameForm : 0) | (all_present ? kAllPresent : 0) | (own_body ? kOwnBody : 0) |
                                  (own_rounds ? kOwnRounds : 0)));
  if (own_rounds) {
    // Differences: a round that is one late costs a byte, not four.
    writer.put_varint(zigzag(context.next_round, head.round));
    writer.put_varint(zigzag(head.round, head.seed_round));
  }
  if (!same_alpha) writer.put(head.alpha);
  if (!form) {
    writer.put(head.flags);
    writer.put(head.mul);
    writer.put(static_cast<uint8_t>(head.unit_exp));
    writer.put(head.m);
    writer.put_varint(head.lanes);
  }
  if (own_body) {
    writer.put_varint(roster.size());
    writer.put_varint(parts.extra_groups);
    writer.put_varint(rest.size());
  }
  writer.put(roster);
  if (!all_present) writer.put(bitmap);
  writer.put(rest);
  if (head.signature) put_signature(writer, *head.signature);
  context.pass(head);
}

uint16_t get_u16(ByteReader& reader, const char* what) {
  const uint64_t value = reader.get_varint();
  if (value > 0xFFFF) refuse("length", fmt::format("{} {}", value, what));
  return static_cast<uint16_t>(value);
}

/// @param head  holds what the place says; the rest is filled in
Bytes get_record(ByteReader& reader, Record head, Context& context) {
  const uint8_t tag = reader.get<uint8_t>();
  head.type = static_cast<RecordType>(tag & kTypeMask);
  // What the tag does not name is as it is in most records, or as in the record before.
  head.round = head.seed_round = context.next_round;
  if (tag & kOwnRounds) {
    head.round = unzigzag(context.next_round, reader.get_varint());
    head.seed_round = unzigzag(head.round, reader.get_varint());
  }
  head.alpha = tag & kSameAlpha ? context.before.alpha : reader.get_float();
  head.flags = context.before.flags;
  head.mul = context.before.mul;
  head.unit_exp = context.before.unit_exp;
  head.m = context.before.m;
  head.lanes = context.before.lanes;
  if (!(tag & kSameForm)) {
    head.flags = reader.get<uint16_t>();
    head.mul = reader.get_float();
    head.unit_exp = static_cast<int8_t>(reader.get<uint8_t>());
    head.m = reader.get<uint8_t>();
    head.lanes = get_u16(reader, "lanes");
  }
  RecordParts parts;
  uint64_t own_rest = 0;
  if (tag & kOwnBody) {
    parts.roster_bytes = get_u16(reader, "bytes of roster changes");
    parts.extra_groups = get_u16(reader, "extra groups");
    own_rest = reader.get_varint();
  }
  // The body is put together as a record has it, and the record is encoded again: its CRC and its hash then follow.
  ByteWriter body;
  body.put(reader.take(parts.roster_bytes));
  const Bytes full = tag & kAllPresent ? full_bitmap(head) : Bytes{};
  const std::span<const std::byte> bitmap = tag & kAllPresent ? std::span(full) : reader.take(bitmap_bytes(head));
  body.put(bitmap);
  body.put(reader.take(tag & kOwnBody ? own_rest : plain_bytes(head, count_bits(bitmap))));
  if (head.flags & kIsSigned) head.signature = get_signature(reader);
  parts.head = head;
  parts.body = body.bytes();
  context.pass(head);
  return put_together(parts);
}

Page decode(std::span<const std::byte> bytes, uint32_t run) {
  if (static_cast<int64_t>(bytes.size()) != page_bytes(bytes) || bytes.size() < kPageHeadBytes + 4)
    refuse("length", fmt::format("{} bytes of a page that says it has {}", bytes.size(), page_bytes(bytes)));
  ByteReader reader(bytes.first(bytes.size() - 4));
  if (const uint32_t magic = reader.get<uint32_t>(); magic != kMagic)
    refuse("magic", fmt::format("begins with {:08x}, not {:08x}", magic, kMagic));
  if (ByteReader(bytes.last(4)).get<uint32_t>() != crc32c(bytes.first(bytes.size() - 4)))
    refuse("crc", "the checksum does not match");
  reader.get<uint32_t>();  // the length, checked above
  Record head;
  head.run = run;
  head.index = reader.get<uint64_t>();
  head.prev = reader.get<uint64_t>();
  const uint64_t last_hash = reader.get<uint64_t>();
  Context context;
  // The records' own fields of run, index and prev are not in the page. They are counted on from the head and chained
  // by the hashes of what was put back together.
  context.next_round = reader.get<uint32_t>();
  const uint16_t count = reader.get<uint16_t>();
  if (const uint16_t version = reader.get<uint16_t>(); version != kVersion)
    refuse("version", fmt::format("version {}, this program reads version {}", version, kVersion));
  Page page;
  page.bytes = static_cast<int64_t>(bytes.size());
  for (int i = 0; i < count; ++i) {
    Bytes encoded = get_record(reader, head, context);
    // Put together again, a record has a CRC that is right by construction: its form has to be looked at all the same.
    if (auto checked = decode_record(encoded); std::holds_alternative<Refusal>(checked))
      throw Refused{std::get<Refusal>(checked)};
    head.prev = chain_hash(encoded);
    ++head.index;
    page.records.push_back(std::move(encoded));
  }
  if (!reader.rest().empty()) refuse("length", fmt::format("{} bytes behind the last record", reader.rest().size()));
  // Each record's hash covers the one before through `prev`: when the last one is right, all of them are as they were.
  if (head.prev != last_hash) refuse("prev", "the last record has another hash than the page says");
  return page;
}

}  // namespace

Bytes encode_page(std::span<const Bytes> records, uint32_t next_round) {
  // The count is a u16 in the head.
  TS_CHECK(!records.empty() && records.size() <= 0xFFFF, "a page of {} records", records.size());
  Context context;
  context.next_round = next_round;
  ByteWriter body;
  for (const Bytes& encoded : records) put_record(body, encoded, context);
  const Record first = take_apart(records.front()).head;
  ByteWriter page;
  page.put(kMagic);
  page.put(static_cast<uint32_t>(body.bytes().size()));
  page.put(first.index);
  page.put(first.prev);
  page.put(chain_hash(records.back()));
  page.put(next_round);
  page.put(static_cast<uint16_t>(records.size()));
  page.put(uint16_t{kVersion});
  page.put(std::span(body.bytes()));
  page.put(crc32c(page.bytes()));
  return page.take();
}

int64_t page_bytes(std::span<const std::byte> head) {
  return head.size() < 8 ? 0 : kPageHeadBytes + ByteReader(head.subspan(4)).get<uint32_t>() + 4;
}

std::variant<Page, Refusal> decode_page(std::span<const std::byte> bytes, uint32_t run) {
  return decode_or_refusal([&] { return decode(bytes, run); });
}

}  // namespace tessera
