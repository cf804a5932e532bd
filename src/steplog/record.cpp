// A record is taken apart in two steps: the head, the lengths and the CRC (take_apart), and only then the body by its
// type. What comes in is bytes that anybody may have written: each length is compared with what is there before it is
// used, and any fault is a Refusal with the name of a rule, so that all replicas refuse the same records for the same
// reason.

#include "steplog/record.h"

#include <algorithm>

#include "core/crc32.h"
#include "core/error.h"
#include "io/files.h"
#include "steplog/wire.h"

namespace tessera {
namespace {

constexpr uint32_t kMagic = 0x31425354;  // "TSB1"
constexpr uint8_t kVersion = 1;
constexpr uint16_t kRoundFlags = kHasLosses | kChangesUnit, kKnownFlags = kRoundFlags | kIsSigned | kHadConflict;

size_t count_present(const std::vector<bool>& present) {
  return static_cast<size_t>(std::count(present.begin(), present.end(), true));
}

void put_group(ByteWriter& writer, const Record& record, const std::vector<bool>& present,
               const std::vector<uint8_t>& bytes) {
  const size_t lanes = count_present(present);
  TS_CHECK(present.size() == record.lanes, "{} presence bits for {} lanes", present.size(), record.lanes);
  TS_CHECK(bytes.size() == lanes * record.m, "{} bytes for {} lanes present of {} bytes each", bytes.size(), lanes,
           record.m);
  writer.put_bits(present);
  writer.put(bytes);
}

void put_roster(ByteWriter& writer, const std::vector<RosterChange>& roster) {
  for (const RosterChange& change : roster) {
    // Varint lane, u8 1 for joining or 0 for leaving, u32 machine.
    writer.put_varint(change.lane);
    writer.put(static_cast<uint8_t>(change.add));
    writer.put(change.machine);
  }
}

/// Everything of a round's body behind the roster. Only lanes that are present have bytes, in ascending order: the
/// bitmap says whose they are.
void put_round(ByteWriter& writer, const Record& record) {
  TS_CHECK(record.m > 0 || record.lanes == 0, "{} lanes of no bytes", record.lanes);
  put_group(writer, record, record.present, record.bytes);
  for (const ExtraGroup& group : record.extra) {
    writer.put(group.seed_round);
    writer.put(group.alpha);
    put_group(writer, record, group.present, group.bytes);
  }
  const size_t losses = record.flags & kHasLosses ? count_present(record.present) : 0;
  TS_CHECK(record.losses.size() == losses, "{} losses, expected {}", record.losses.size(), losses);
  for (uint16_t loss : record.losses) writer.put(loss);
}

void get_roster(ByteReader reader, Record& record) {
  while (!reader.rest().empty()) {
    // Beyond a lane's 16 bits the number could not be one, and it is used as a size later.
    const uint64_t lane = reader.get_varint();
    if (lane > 0xFFFF) refuse("lane", fmt::format("a roster change of lane {}", lane));
    const uint8_t add = reader.get<uint8_t>();
    if (add > 1) refuse("roster", fmt::format("a roster change of kind {}", add));
    record.roster.push_back({static_cast<uint32_t>(lane), add == 1, reader.get<uint32_t>()});
  }
}

void get_group(ByteReader& reader, const Record& record, std::vector<bool>& present, std::vector<uint8_t>& bytes) {
  present = reader.get_bits(record.lanes);
  bytes = reader.get_bytes(count_present(present) * record.m);
}

void get_round(const RecordParts& parts, Record& record) {
  // Lanes without bytes would be present and say nothing.
  if (record.m == 0 && record.lanes > 0) refuse("m", fmt::format("{} lanes of no bytes", record.lanes));
  ByteReader reader(parts.body);
  get_roster(ByteReader(reader.take(parts.roster_bytes)), record);
  get_group(reader, record, record.present, record.bytes);
  for (int i = 0; i < parts.extra_groups; ++i) {
    ExtraGroup group;
    group.seed_round = reader.get<uint32_t>();
    group.alpha = reader.get_float();
    get_group(reader, record, group.present, group.bytes);
    record.extra.push_back(std::move(group));
  }
  if (record.flags & kHasLosses)
    for (size_t i = count_present(record.present); i > 0; --i) record.losses.push_back(reader.get<uint16_t>());
  if (!reader.rest().empty()) refuse("length", fmt::format("{} bytes too many in the body", reader.rest().size()));
}

/// Body of a record of another type than round.
void put_fields(ByteWriter& writer, const Record& record) {
  if (record.type == RecordType::digest) writer.put(record.machine);
  if (record.type == RecordType::digest || record.type == RecordType::snapshot)
    for (uint64_t word : record.digest) writer.put(word);
  if (record.type != RecordType::snapshot) return;
  writer.put(std::span<const std::byte>(record.sha256));
  writer.put(record.file_bytes);
}

void get_fields(const RecordParts& parts, Record& record) {
  // One form for one meaning: what a type does not use is zero, or equal records could differ in their hashes.
  if (record.flags & kRoundFlags || record.m || record.lanes || parts.roster_bytes || parts.extra_groups)
    refuse("head", "flags of rounds, m, lanes, roster bytes and extra groups are 0 in a record that is no round");
  ByteReader reader(parts.body);
  if (record.type == RecordType::digest) record.machine = reader.get<uint32_t>();
  if (record.type == RecordType::digest || record.type == RecordType::snapshot)
    for (uint64_t& word : record.digest) word = reader.get<uint64_t>();
  if (record.type == RecordType::snapshot) {
    std::ranges::copy(reader.take(record.sha256.size()), record.sha256.begin());
    record.file_bytes = reader.get<uint64_t>();
  }
  if (!reader.rest().empty()) refuse("length", fmt::format("{} bytes too many in the body", reader.rest().size()));
}

Record decode(std::span<const std::byte> encoded) {
  const RecordParts parts = take_apart(encoded);
  Record record = parts.head;
  if (record.type == RecordType::round)
    get_round(parts, record);
  else
    get_fields(parts, record);
  return record;
}

}  // namespace

uint32_t RunId::prefix() const { return ByteReader(sha256).get<uint32_t>(); }

Bytes put_together(const RecordParts& parts) {
  const Record& head = parts.head;
  TS_CHECK(parts.body.size() <= UINT32_MAX, "a record's body of {} bytes", parts.body.size());
  // The head's 56 bytes: u32 magic | u8 version | u8 type | u16 flags | u32 run | u32 round | u32 seed round | u64
  // index | u64 prev | f32 alpha | f32 mul | i8 unit_exp | u8 m | u16 lanes | u16 bytes of roster changes | u16 extra
  // groups | u32 bytes of the body. The body follows, then a CRC-32C of all of it, and a signature where it is flagged.
  ByteWriter writer;
  writer.put(kMagic);
  writer.put(kVersion);
  writer.put(static_cast<uint8_t>(head.type));
  writer.put(head.flags);
  writer.put(head.run);
  writer.put(head.round);
  writer.put(head.seed_round);
  writer.put(head.index);
  writer.put(head.prev);
  writer.put(head.alpha);
  writer.put(head.mul);
  writer.put(static_cast<uint8_t>(head.unit_exp));
  writer.put(head.m);
  writer.put(head.lanes);
  writer.put(parts.roster_bytes);
  writer.put(parts.extra_groups);
  writer.put(static_cast<uint32_t>(parts.body.size()));
  writer.put(parts.body);
  writer.put(crc32c(writer.bytes()));
  if (head.signature) put_signature(writer, *head.signature);
  return writer.take();
}

void put_signature(ByteWriter& writer, const Signature& signature) {
  writer.put(signature.key);
  writer.put(std::span<const std::byte>(signature.bytes));
}

Signature get_signature(ByteReader& reader) {
  Signature signature;
  signature.key = reader.get<uint8_t>();
  std::ranges::copy(reader.take(signature.bytes.size()), signature.bytes.begin());
  return signature;
}

RecordParts take_apart(std::span<const std::byte> encoded) {
  if (encoded.size() < kRecordFrameBytes)
    refuse("length", fmt::format("{} bytes; a record has at least {}", encoded.size(), kRecordFrameBytes));
  ByteReader reader(encoded);
  if (const uint32_t magic = reader.get<uint32_t>(); magic != kMagic)
    refuse("magic", fmt::format("begins with {:08x}, not {:08x}", magic, kMagic));
  if (const uint8_t version = reader.get<uint8_t>(); version != kVersion)
    refuse("version", fmt::format("version {}, this program reads version {}", version, kVersion));
  RecordParts parts;
  Record& head = parts.head;
  const uint8_t type = reader.get<uint8_t>();
  head.type = static_cast<RecordType>(type);
  head.flags = reader.get<uint16_t>();
  head.run = reader.get<uint32_t>();
  head.round = reader.get<uint32_t>();
  head.seed_round = reader.get<uint32_t>();
  head.index = reader.get<uint64_t>();
  head.prev = reader.get<uint64_t>();
  head.alpha = reader.get_float();
  head.mul = reader.get_float();
  head.unit_exp = static_cast<int8_t>(reader.get<uint8_t>());
  head.m = reader.get<uint8_t>();
  head.lanes = reader.get<uint16_t>();
  parts.roster_bytes = reader.get<uint16_t>();
  parts.extra_groups = reader.get<uint16_t>();
  // The length that the head says has to be the one that is there, before anything of the body is read by it.
  const uint64_t body_bytes = reader.get<uint32_t>(), framed = kRecordFrameBytes + body_bytes;
  const bool is_signed = head.flags & kIsSigned;
  if (encoded.size() != framed && !(is_signed && encoded.size() == framed + kSignatureBytes))
    refuse("length", fmt::format("{} bytes, its head says {}", encoded.size(),
                                 framed + (is_signed ? uint64_t{kSignatureBytes} : 0)));
  parts.body = reader.take(body_bytes);
  if (reader.get<uint32_t>() != crc32c(encoded.first(framed - 4))) refuse("crc", "the checksum does not match");
  // Behind the CRC: these are mistakes of a writer, not of a disk.
  if (type < 1 || type > 5) refuse("type", fmt::format("records of type {} are unknown", type));
  if (head.flags & ~kKnownFlags) refuse("flags", fmt::format("flags {:04x} are unknown", head.flags));
  if (is_signed && reader.rest().empty()) refuse("flags", "it says that it is signed, and no signature follows");
  if (is_signed) head.signature = get_signature(reader);
  return parts;
}

Bytes encode(const Record& record) {
  TS_CHECK(record.signature.has_value() == ((record.flags & kIsSigned) != 0), "flags {:04x} and {} signature",
           record.flags, record.signature ? "a" : "no");
  ByteWriter roster, rest;
  RecordParts parts;
  if (record.type == RecordType::round) {
    parts.head = record;
    put_roster(roster, record.roster);
    put_round(rest, record);
    TS_CHECK(roster.bytes().size() <= 0xFFFF, "roster changes of {} bytes", roster.bytes().size());
    TS_CHECK(record.extra.size() <= 0xFFFF, "{} extra groups", record.extra.size());
    parts.roster_bytes = static_cast<uint16_t>(roster.bytes().size());
    parts.extra_groups = static_cast<uint16_t>(record.extra.size());
  } else {
    parts.head = record;
    // As get_fields demands of such a record.
    parts.head.flags &= static_cast<uint16_t>(~kRoundFlags);
    parts.head.lanes = parts.head.m = 0;
    put_fields(rest, record);
  }
  roster.put(std::span(rest.bytes()));
  parts.body = roster.bytes();
  return put_together(parts);
}

std::variant<Record, Refusal> decode_record(std::span<const std::byte> encoded) {
  return decode_or_refusal([&] { return decode(encoded); });
}

uint64_t chain_hash(std::span<const std::byte> record) { return ByteReader(sha256(record)).get<uint64_t>(); }

}  // namespace tessera
