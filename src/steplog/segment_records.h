#pragma once
// The records of a segment that was read before, whatever its form, and the other form of the same records.

#include <functional>

#include "steplog/archive.h"
#include "steplog/segment.h"

namespace tessera {

/// The page of an archive that begins at `offset`.
/// @throws UserError naming file and offset when it is damaged
Page read_page(const Segment& archive, uint32_t run, const FileDescriptor&, int64_t offset, int64_t end);

/// Calls use(encoded, offset) for the records of a segment from `index` on, until it returns false.
/// @return whether it never did
/// @param offset  where the record begins in its file; in an archive, its page
using UseRecord = std::function<bool(std::span<const std::byte> encoded, int64_t offset)>;
bool for_each_record(const Segment&, uint32_t run, uint64_t index, const UseRecord& use);

/// Where record `index` begins in the file; its end when the record is not there.
int64_t offset_of(const Segment&, uint32_t run, uint64_t index);

/// A reader's knowledge of a segment that was turned into an archive since.
Segment as_it_is_now(const Segment&, uint32_t run);

/// The whole file of an archive that holds what a segment holds, one page after the other.
/// @param before  the rules as they stood where it begins
Bytes archive_of(const Segment&, uint32_t run, const ChainRules& before);

/// The whole file of a segment that holds the first `count` records of an archive.
Bytes segment_of(const Segment& archive, uint32_t run, const ChainRules& before, uint64_t count);

}  // namespace tessera
