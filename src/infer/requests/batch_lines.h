#pragma once
// Batch lines: {"custom_id", "prompt" | "prompt_token_ids" | "prefix" with "contexts", options ..}.

#include <string>

#include "core/json.h"
#include "infer/requests/request_builder.h"

namespace tessera {

/// Adds the request of a line, or with contexts c_0, c_1, .. the requests custom_id/0, custom_id/1, ..: the tokens of
/// prefix, which all of them begin with, and those of c_i as they are behind other text.
/// @throws UserError without a place
void add_batch_line(const Json& line, const std::string& where, RequestBuilder&);

/// @throws UserError: `messages` wait for chat templates
[[noreturn]] void refuse_messages();

}  // namespace tessera
