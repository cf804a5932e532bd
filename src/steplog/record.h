#pragma once
// steplog/: the ordered log of rounds that shared-seed training leaves behind: votes, records, segments on disk,
// transports. The log of bytes is the checkpoint: base weights and log give the same bits to everyone.
// Formats: docs/step_log.md.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace tessera {

using Bytes = std::vector<std::byte>;

/// SHA-256 of the run header; its first four bytes (little-endian) name the run in votes and records.
struct RunId {
  std::array<std::byte, 32> sha256{};
  uint32_t prefix() const;
  friend bool operator==(const RunId&, const RunId&) = default;
};

/// What one machine says in a round. On the wire:
///   u16 magic 0x5654 | u8 version | u8 flags | u32 run | u32 seed round | u32 machine | u8 m | m bytes |
///   [f16 loss] [offer: f32 rate, f32 mul] [digest: u64, u64] | u16 low half of CRC-32C
/// flags: bit 0 loss, bit 1 offer, bit 2 digest, bit 3 stop; high nibble lag.
struct Vote {
  // Seed round: the round whose directions the bytes are about. It is the present one, unless a vote is late.
  uint32_t run = 0, seed_round = 0, machine = 0;
  uint8_t lag = 0;
  bool stop = false;             // this machine was asked to stop after this round
  std::vector<uint8_t> bytes;    // [m], 1 .. 255
  std::optional<uint16_t> loss;  // mean loss, f16 bits
  struct Offer {
    float rate, mul;  // what the record will say if this machine packs: learning rate and decay factor
  };
  std::optional<Offer> offer;
  std::optional<std::array<uint64_t, 2>> digest;  // of the state before this round
};
Bytes encode(const Vote&);
/// Why a vote or record was refused, as a short rule: "magic", "version", "crc", "length", ...
struct Refusal {
  std::string rule, detail;
};
std::variant<Vote, Refusal> decode_vote_message(std::span<const std::byte>);

enum class RecordType : uint8_t { round = 1, snapshot = 2, digest = 3, end = 4, reseed = 5 };

/// A machine that takes a lane, or leaves it.
struct RosterChange {
  uint32_t lane;
  bool add;
  uint32_t machine;
};
/// Late votes of another seed round, with an alpha of their own.
struct ExtraGroup {
  uint32_t seed_round = 0;
  float alpha = 0;
  std::vector<bool> present;   // [lanes]
  std::vector<uint8_t> bytes;  // [present lanes · m]
};

/// Whose word a record is, behind its CRC: signature.h.
struct Signature {
  uint8_t key = 0;                    // place in the header's list of signers
  std::array<std::byte, 64> bytes{};  // Ed25519
  friend bool operator==(const Signature&, const Signature&) = default;
};

// Flags of a record; the first two are a round's alone, and the last two are of format 2.
constexpr uint16_t kHasLosses = 1;    // f16 losses follow
constexpr uint16_t kChangesUnit = 2;  // unit_exp is not that of the record before
constexpr uint16_t kIsSigned = 4;     // a signature follows
constexpr uint16_t kHadConflict = 8;  // its packer has lost a compare-and-set since its last record

/// One record. All types share the 56-byte head; the body depends on the type. Little-endian, no padding;
/// a CRC-32C follows the body, and then the signature where there is one.
struct Record {
  RecordType type = RecordType::round;
  uint16_t flags = 0;
  uint32_t run = 0, round = 0, seed_round = 0;
  uint64_t index = 0;  // place in the chain, from 0
  uint64_t prev = 0;   // first 8 bytes of SHA-256 of the record before; 0 for the first
  // The update of a round: w <- mul · w, then w <- w + alpha · (the integer sum of its votes), as in kernels/votes.h.
  float alpha = 0, mul = 1;
  // The newest announced unit: votes are multiples of 2^-unit_exp from seed round `round` + stale_max + 1 on.
  int8_t unit_exp = 9;
  uint8_t m = 0;  // bytes a lane
  // Size of the roster, behind the changes in this record.
  uint16_t lanes = 0;
  // type round
  std::vector<RosterChange> roster;
  std::vector<bool> present;   // [lanes]
  std::vector<uint8_t> bytes;  // [present lanes · m], ascending lane
  std::vector<ExtraGroup> extra;
  std::vector<uint16_t> losses;  // [present lanes] f16 bits, when flagged
  // type snapshot and digest (round counts the rounds applied before)
  uint32_t machine = 0;                // digest: whose
  std::array<uint64_t, 2> digest{};    // of the state
  std::array<std::byte, 32> sha256{};  // snapshot: of the file
  uint64_t file_bytes = 0;
  std::optional<Signature> signature;  // when flagged
};
Bytes encode(const Record&);
/// Checks every length against what is there before it is used, and the CRC.
/// Whether the record fits the chain, and who signed it, is ChainRules' matter.
std::variant<Record, Refusal> decode_record(std::span<const std::byte>);
/// First 8 bytes of SHA-256 of an encoded record: the next one's `prev`.
uint64_t chain_hash(std::span<const std::byte> record);

}  // namespace tessera
