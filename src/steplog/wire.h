#pragma once
// Bytes as the formats of steplog/ write them: little-endian, no padding, varints of 7 bits a byte.

#include <fmt/core.h>

#include <bit>
#include <concepts>
#include <utility>

#include "core/error.h"
#include "steplog/record.h"

namespace tessera {

/// Thrown while something is taken apart, and caught where that was begun.
struct Refused {
  Refusal refusal;
};
[[noreturn]] inline void refuse(std::string rule, std::string detail) {
  throw Refused{{std::move(rule), std::move(detail)}};
}

/// What `decode` returns, or why it refused.
template <class Decode> auto decode_or_refusal(Decode decode) -> std::variant<decltype(decode()), Refusal> {
  try {
    return decode();
  } catch (Refused& refused) {
    return std::move(refused.refusal);
  }
}

/// Appends to a growing vector. Integers are taken by their own width: a call's type is the field's.
class ByteWriter {
 public:
  // Byte by byte: the formats are little-endian on any machine.
  template <std::unsigned_integral T> void put(T value) {
    for (size_t i = 0; i < sizeof(T); ++i) bytes_.push_back(static_cast<std::byte>(uint64_t{value} >> (8 * i) & 0xFF));
  }
  void put(float value) { put(std::bit_cast<uint32_t>(value)); }
  void put(std::span<const std::byte> bytes);
  void put(const std::vector<uint8_t>& bytes) { put(std::as_bytes(std::span(bytes))); }
  // Seven bits a byte, the lowest first; the top bit says that another byte follows.
  void put_varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) put(static_cast<uint8_t>((value & 0x7F) | 0x80));
    put(static_cast<uint8_t>(value));
  }
  void put_bits(const std::vector<bool>& bits);  // the first bit is the lowest of the first byte
  const Bytes& bytes() const { return bytes_; }
  Bytes take() { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

/// Reads from the front of a span; a read beyond its end is refused by the rule "length".
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}
  std::span<const std::byte> rest() const { return rest_; }

  std::span<const std::byte> take(uint64_t bytes) {
    if (bytes > rest_.size())
      refuse("length", fmt::format("{} more bytes expected, {} are there", bytes, rest_.size()));
    const auto taken = rest_.first(bytes);
    rest_ = rest_.subspan(bytes);
    return taken;
  }
  template <std::unsigned_integral T> T get() {
    uint64_t value = 0;
    const auto bytes = take(sizeof(T));
    for (size_t i = 0; i < sizeof(T); ++i) value |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
    return static_cast<T>(value);
  }
  float get_float() { return std::bit_cast<float>(get<uint32_t>()); }
  /// Only the shortest form of a number, so that equal meaning is equal bytes.
  uint64_t get_varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = get<uint8_t>();
      // Nine groups of seven bits leave one bit of 64 for the last byte.
      if (shift == 63 && byte > 1) break;
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte & 0x80) continue;
      // A last byte of zero adds nothing: the number could have been written shorter.
      if (byte == 0 && shift > 0) break;
      return value;
    }
    refuse("varint", "a number is not written in its shortest form");
  }
  std::vector<uint8_t> get_bytes(uint64_t count) {
    const auto bytes = take(count);
    const auto* first = reinterpret_cast<const uint8_t*>(bytes.data());
    return {first, first + bytes.size()};
  }
  /// Bits beyond `count` in the last byte must be zero.
  std::vector<bool> get_bits(size_t count) {
    const auto bytes = take((count + 7) / 8);
    std::vector<bool> bits(count);
    for (size_t i = 0; i < bytes.size() * 8; ++i) {
      const bool set = (std::to_integer<int>(bytes[i / 8]) >> (i % 8) & 1) != 0;
      if (i < count)
        bits[i] = set;
      else if (set)
        refuse("bitmap", fmt::format("lane {} is present, but there are {} lanes", i, count));
    }
    return bits;
  }

 private:
  std::span<const std::byte> rest_;
};

// The head is of one size for all types, so that a record's length is known from it.
constexpr size_t kRecordHeadBytes = 56, kRecordFrameBytes = kRecordHeadBytes + 4;  // with the CRC
constexpr size_t kSignatureBytes = 65;  // behind the CRC of a record that is signed: its key's place, and the signature

/// A record with its body not looked into.
struct RecordParts {
  Record head;  // the fields of the 56 bytes, and the signature
  uint16_t roster_bytes = 0, extra_groups = 0;
  std::span<const std::byte> body;
};
/// Checks magic, version, type, flags, the lengths against each other, and the CRC; not the signature. @throws Refused
RecordParts take_apart(std::span<const std::byte> encoded);
Bytes put_together(const RecordParts&);
void put_signature(ByteWriter&, const Signature&);
Signature get_signature(ByteReader&);

}  // namespace tessera
