#pragma once
// From gradients to the bytes of a vote, and back to integers.

#include <optional>
#include <span>
#include <vector>

#include "train/spsa/run_header.h"

namespace tessera {

/// The integer of one probe's bytes; nothing for an invalid vote.
/// float32 votes: g in units of 2^-14, to nearest even, at most 2^23.
std::optional<int32_t> read_vote(const RunHeader&, std::span<const uint8_t> bytes);

/// How many of a run of probes are valid.
int64_t valid_votes(const RunHeader&, std::span<const uint8_t> bytes);

/// Appends one probe's bytes: g along `probe`'s direction, in units of 2^-unit. Rounding draws come from the run's own
/// stream, so that a run repeats.
void write_vote(const RunHeader&, double g, int unit, uint32_t round, uint32_t machine, uint16_t probe,
                std::vector<uint8_t>& bytes);
/// The same with a rounding draw of the caller's, in [0, 1).
void write_vote(const RunHeader&, double g, int unit, double draw, std::vector<uint8_t>& bytes);

}  // namespace tessera
