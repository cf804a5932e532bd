#pragma once
// How fast a model reads a prompt (prefill) and continues it (decode), measured.

#include <functional>
#include <optional>

#include "model/model.h"

namespace tessera {

/// Of one sequence at a time.
struct SpeedTrial {
  int64_t prompt = 512;             // tokens of the prefill, fed by one pass
  int64_t context = 64, next = 64;  // decode: `next` passes of one token each, behind so many
  int repeats = 5;                  // of both; at least 1
};

/// Tokens a second; medians of the repeats. The logits of each pass's last row are formed and brought to the host, and
/// no token is chosen.
struct Speed {
  double prefill = 0, decode = 0;
};

/// Positions 0 .. max(prompt, context + next) - 1 occur. The bound adapter, if any, must be assembled.
/// Scratch: plan_speed_bytes. @param stop  asked before each repeat; what it cut short is nothing
std::optional<Speed> measure_speed(const Context&, Model&, const SpeedTrial&, const std::function<bool()>& stop);

/// Bytes of the arena that measure_speed needs, the cache included.
int64_t plan_speed_bytes(Model&, const SpeedTrial&, int threads);

}  // namespace tessera
