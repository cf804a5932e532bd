#include "steplog/control_message.h"

#include "core/crc32.h"
#include "steplog/wire.h"

namespace tessera {
namespace {

constexpr uint16_t kRosterMagic = 0x4A54, kHaveMagic = 0x4854;
constexpr uint8_t kVersion = 1;
constexpr size_t kRosterBytes = 14, kHaveBytes = 26, kChecksumBytes = 2;

/// As in a vote: two bytes of the four are enough for messages that are few and short.
uint16_t checksum(std::span<const std::byte> bytes) { return static_cast<uint16_t>(crc32c(bytes)); }

void put(ByteWriter& writer, const RosterRequest& request) {
  writer.put(kRosterMagic);
  writer.put(kVersion);
  writer.put(static_cast<uint8_t>(request.kind));
  writer.put(request.run);
  writer.put(request.machine);
}

void put(ByteWriter& writer, const HaveRecords& have) {
  writer.put(kHaveMagic);
  writer.put(kVersion);
  writer.put(uint8_t{0});
  writer.put(have.run);
  writer.put(have.records);
  writer.put(have.prev);
}

void check_length(std::span<const std::byte> message, size_t expected) {
  if (message.size() != expected) refuse("length", fmt::format("{} bytes, expected {}", message.size(), expected));
  const uint16_t found = ByteReader(message.last(kChecksumBytes)).get<uint16_t>();
  if (found != checksum(message.first(expected - kChecksumBytes))) refuse("crc", "the checksum does not match");
}

ControlMessage decode(std::span<const std::byte> message) {
  if (message.size() < kRosterBytes)
    refuse("length", fmt::format("{} bytes; a control message has at least {}", message.size(), kRosterBytes));
  ByteReader reader(message);
  const uint16_t magic = reader.get<uint16_t>();
  if (magic != kRosterMagic && magic != kHaveMagic)
    refuse("magic", fmt::format("begins with {:04x}, not {:04x} or {:04x}", magic, kRosterMagic, kHaveMagic));
  if (const uint8_t version = reader.get<uint8_t>(); version != kVersion)
    refuse("version", fmt::format("version {}, this program reads version {}", version, kVersion));
  const bool have = magic == kHaveMagic;
  const uint8_t kind = reader.get<uint8_t>();
  if (have ? kind != 0 : kind != 1 && kind != 2)
    refuse("kind", fmt::format("kind {}, expected {}", kind, have ? "0" : "1 or 2"));
  check_length(message, have ? kHaveBytes : kRosterBytes);
  const uint32_t run = reader.get<uint32_t>();
  if (!have) return RosterRequest{static_cast<RosterRequest::Kind>(kind), run, reader.get<uint32_t>()};
  const uint64_t records = reader.get<uint64_t>();
  return HaveRecords{run, records, reader.get<uint64_t>()};
}

}  // namespace

Bytes encode(const ControlMessage& message) {
  ByteWriter writer;
  std::visit([&](const auto& kind) { put(writer, kind); }, message);
  writer.put(checksum(writer.bytes()));
  return writer.take();
}

std::variant<ControlMessage, Refusal> decode_control_message(std::span<const std::byte> message) {
  return decode_or_refusal([&] { return decode(message); });
}

}  // namespace tessera
