//   magic 2 | version 1 | flags 1 | run 4 | seed round 4 | machine 4 | m 1 | m bytes | loss, offer, digest | checksum 2
// Flags say which optional parts there are, so that the length follows from flags and m, and is checked first.

#include "core/crc32.h"
#include "core/error.h"
#include "steplog/wire.h"

namespace tessera {
namespace {

constexpr uint16_t kMagic = 0x5654;
constexpr uint8_t kVersion = 1;
constexpr uint8_t kHasLoss = 1, kHasOffer = 2, kHasDigest = 4, kStop = 8;
constexpr size_t kFixedBytes = 19;  // without the m bytes and what is optional

uint8_t flags_of(const Vote& vote) {
  // The lower half says what follows, the upper half is the lag.
  return static_cast<uint8_t>((vote.loss ? kHasLoss : 0) | (vote.offer ? kHasOffer : 0) |
                              (vote.digest ? kHasDigest : 0) | (vote.stop ? kStop : 0) | vote.lag << 4);
}

size_t optional_bytes(uint8_t flags) {
  return (flags & kHasLoss ? 2 : 0) + (flags & kHasOffer ? 8 : 0) + (flags & kHasDigest ? 16 : 0);
}

/// The low half of the CRC: a vote is one voice among many and its bytes are bounded, so that two bytes may be saved.
uint16_t checksum(std::span<const std::byte> bytes) { return static_cast<uint16_t>(crc32c(bytes)); }

/// Checks everything that does not depend on what the vote says.
void check_form(std::span<const std::byte> message) {
  if (message.size() < kFixedBytes)
    refuse("length", fmt::format("{} bytes; a vote has at least {}", message.size(), kFixedBytes + 1));
  ByteReader reader(message);
  if (const uint16_t magic = reader.get<uint16_t>(); magic != kMagic)
    refuse("magic", fmt::format("begins with {:04x}, not {:04x}", magic, kMagic));
  if (const uint8_t version = reader.get<uint8_t>(); version != kVersion)
    refuse("version", fmt::format("version {}, this program reads version {}", version, kVersion));
  const uint8_t flags = reader.get<uint8_t>();
  reader.take(12);  // run, seed round, machine: what they may be depends on the reader
  const uint8_t m = reader.get<uint8_t>();
  if (m == 0) refuse("m", "a vote without a byte");
  if (const size_t expected = kFixedBytes + m + optional_bytes(flags); message.size() != expected)
    refuse("length", fmt::format("{} bytes, expected {}", message.size(), expected));
  const uint16_t found = ByteReader(message.last(2)).get<uint16_t>();
  if (found != checksum(message.first(message.size() - 2))) refuse("crc", "the checksum does not match");
}

Vote decode(std::span<const std::byte> message) {
  check_form(message);
  // Behind the magic and the version, which were checked.
  ByteReader reader(message.subspan(3));
  Vote vote;
  const uint8_t flags = reader.get<uint8_t>();
  vote.lag = flags >> 4;
  vote.stop = flags & kStop;
  vote.run = reader.get<uint32_t>();
  vote.seed_round = reader.get<uint32_t>();
  vote.machine = reader.get<uint32_t>();
  vote.bytes = reader.get_bytes(reader.get<uint8_t>());
  if (flags & kHasLoss) vote.loss = reader.get<uint16_t>();
  if (flags & kHasOffer) {
    const float rate = reader.get_float();
    vote.offer = Vote::Offer{rate, reader.get_float()};
  }
  if (flags & kHasDigest) {
    const uint64_t first = reader.get<uint64_t>();
    vote.digest = {first, reader.get<uint64_t>()};
  }
  return vote;
}

}  // namespace

Bytes encode(const Vote& vote) {
  TS_CHECK(!vote.bytes.empty() && vote.bytes.size() <= 255, "a vote of {} bytes, expected 1 to 255", vote.bytes.size());
  TS_CHECK(vote.lag < 16, "lag {} does not fit four bits", vote.lag);
  ByteWriter writer;
  writer.put(kMagic);
  writer.put(kVersion);
  writer.put(flags_of(vote));
  writer.put(vote.run);
  writer.put(vote.seed_round);
  writer.put(vote.machine);
  writer.put(static_cast<uint8_t>(vote.bytes.size()));
  writer.put(vote.bytes);
  if (vote.loss) writer.put(*vote.loss);
  if (vote.offer) {
    writer.put(vote.offer->rate);
    writer.put(vote.offer->mul);
  }
  if (vote.digest)
    for (uint64_t word : *vote.digest) writer.put(word);
  writer.put(checksum(writer.bytes()));
  return writer.take();
}

std::variant<Vote, Refusal> decode_vote_message(std::span<const std::byte> message) {
  return decode_or_refusal([&] { return decode(message); });
}

}  // namespace tessera
