#pragma once
// Lines of OpenAI's batches: {"custom_id", "method": "POST", "url", "body"}.

#include <string>

#include "core/json.h"
#include "infer/requests/request_builder.h"

namespace tessera {

/// Adds the requests of a line, one for each prompt of its body; of several, the i-th has the custom_id "ID/i", so that
/// equal prompts are continued otherwise. What the body does not say is the recipe's, where the recipe says it, else
/// OpenAI's default: temperature 1, 16 new tokens, or with chat those to the end of the context.
/// @throws UserError without a place: also for what is not offered (stream, tools, functions, suffix, formats, urls)
void add_openai_line(const Json& line, const std::string& where, RequestBuilder&);

}  // namespace tessera
