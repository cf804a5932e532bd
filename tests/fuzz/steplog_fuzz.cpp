// libFuzzer target for what other machines and disks hand to steplog/: votes, records, archive pages,
// saved chain states, control messages.
//
//   cmake -S . -B build-fuzz -DCMAKE_CXX_COMPILER=clang++ -DTESSERA_FUZZ=ON -DTESSERA_SANITIZE=address
//   cmake --build build-fuzz --target steplog_fuzz && build-fuzz/tests/steplog_fuzz -max_total_time=300
//
// The first byte of an input says which parser gets the rest, and whether its checksum is put right first: without that
// almost nothing would pass. What a parser accepts must encode to the same bytes again.

#include <cstdio>
#include <cstdlib>

#include "core/crc32.h"
#include "steplog/archive.h"
#include "steplog/chain_rules.h"
#include "steplog/control_message.h"

namespace {

using namespace tessera;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

/// Overwrites the last `size` bytes with the checksum of what is before them.
void seal(Bytes& bytes, size_t size) {
  if (bytes.size() < size) return;
  const uint32_t crc = crc32c(std::span(bytes).first(bytes.size() - size));
  for (size_t i = 0; i < size; ++i) bytes[bytes.size() - size + i] = static_cast<std::byte>(crc >> (8 * i) & 0xFF);
}

void try_vote(const Bytes& bytes) {
  const auto decoded = decode_vote_message(bytes);
  if (const auto* vote = std::get_if<Vote>(&decoded)) require(encode(*vote) == bytes, "a vote is not itself again");
}

void try_control_message(const Bytes& bytes) {
  const auto decoded = decode_control_message(bytes);
  if (const auto* message = std::get_if<ControlMessage>(&decoded))
    require(encode(*message) == bytes, "a control message is not itself again");
}

void try_record(const Bytes& bytes) {
  const auto decoded = decode_record(bytes);
  const auto* record = std::get_if<Record>(&decoded);
  if (!record) return;
  require(encode(*record) == bytes, "a record is not itself again");
  ChainRules::Limits limits;
  for (int i = 0; i < 4; ++i)
    limits.run.sha256[static_cast<size_t>(i)] = static_cast<std::byte>(record->run >> (8 * i) & 0xFF);
  ChainRules rules(limits);
  if (!rules.refuses(*record)) rules.accept(*record, bytes);
}

void try_page(Bytes bytes) {
  if (bytes.size() >= 44) {  // the right length, too
    const auto payload = static_cast<uint32_t>(bytes.size() - 44);
    for (size_t i = 0; i < 4; ++i) bytes[4 + i] = static_cast<std::byte>(payload >> (8 * i) & 0xFF);
    seal(bytes, 4);
  }
  const auto decoded = decode_page(bytes, 7);
  if (const auto* page = std::get_if<Page>(&decoded))
    for (const Bytes& record : page->records)
      require(std::holds_alternative<Record>(decode_record(record)), "a page holds a record that is refused");
}

void try_state(const ChainRules::Limits& limits, const Bytes& bytes) {
  const auto restored = ChainRules::restore(limits, bytes);
  const auto* rules = std::get_if<ChainRules>(&restored);
  if (!rules) return;
  const Bytes saved = rules->save();
  const auto again = ChainRules::restore(limits, saved);
  require(std::holds_alternative<ChainRules>(again) && std::get<ChainRules>(again).save() == saved,
          "a state is not itself again");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto* first = reinterpret_cast<const std::byte*>(data);
  Bytes bytes(first + 1, first + size);
  const int choice = data[0] % 5;
  if (data[0] & 0x80) seal(bytes, choice == 0 || choice == 4 ? 2 : 4);
  if (choice == 0) try_vote(bytes);
  if (choice == 1) try_record(bytes);
  if (choice == 2) try_page(bytes);
  if (choice == 4) try_control_message(bytes);
  if (choice == 3) {
    try_state({}, bytes);
    try_state({.stale_max = 2, .format = 2}, bytes);
  }
  return 0;
}
