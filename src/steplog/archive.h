#pragma once
// The page form of old records: what follows from the records before is left out, so that a vote costs little more than
// its byte. Lossless: the same bytes come back, hash chain included. Page: docs/step_log.md.

#include "steplog/record.h"

namespace tessera {

/// Of a page's head: u32 magic | u32 bytes of the body | u64 index and u64 prev of the first record | u64 hash of the
/// last one | u32 round expected next | u16 records | u16 version. The body follows, and a u32 CRC-32C of all before
/// it.
constexpr int64_t kPageHeadBytes = 40;

/// Some of a page's records, put back together.
struct Page {
  std::vector<Bytes> records;
  int64_t bytes = 0;  // of the page
};

/// @param records     consecutive records, all good
/// @param next_round  the round expected next before the first of them
Bytes encode_page(std::span<const Bytes> records, uint32_t next_round);
/// How long a page says that it is; its head is enough. Less than a page can be when the bytes are no page's head.
int64_t page_bytes(std::span<const std::byte> head);
/// Exactly one page. Checks the CRC, every length, each record's form and the chain from its first record to its last.
std::variant<Page, Refusal> decode_page(std::span<const std::byte>, uint32_t run);

}  // namespace tessera
