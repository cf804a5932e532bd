#pragma once
// What loose nodes tell each other beside votes: that a machine joins or leaves, and, before an engine that lost its
// tail is filled again, how long each one's log is. Formats: docs/step_log.md.

#include "steplog/record.h"

namespace tessera {

/// A machine proposes its number, or says that it leaves. The answer is a roster change in a record. 14 bytes:
///   u16 magic 0x4A54 | u8 version 1 | u8 kind | u32 run | u32 machine | u16 low half of CRC-32C
struct RosterRequest {
  enum class Kind : uint8_t { join = 1, leave = 2 } kind = Kind::join;
  uint32_t run = 0, machine = 0;
  friend bool operator==(const RosterRequest&, const RosterRequest&) = default;
};

/// HAVE: my log holds so many records, and the next one's `prev` would be this. 26 bytes:
///   u16 magic 0x4854 | u8 version 1 | u8 zero | u32 run | u64 records | u64 prev | u16 low half of CRC-32C
struct HaveRecords {
  uint32_t run = 0;
  uint64_t records = 0, prev = 0;
  friend bool operator==(const HaveRecords&, const HaveRecords&) = default;
};

using ControlMessage = std::variant<RosterRequest, HaveRecords>;
Bytes encode(const ControlMessage&);
/// The first of these rules that it breaks: "length" (shorter than any), "magic", "version", "kind" (of a HAVE: not
/// zero), "length", "crc". What is accepted encodes to the same bytes again.
std::variant<ControlMessage, Refusal> decode_control_message(std::span<const std::byte>);

}  // namespace tessera
