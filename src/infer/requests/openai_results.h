#pragma once
// Answers to lines of OpenAI's batches.

#include <span>
#include <string>

#include "core/json.h"
#include "data/tokenizer.h"
#include "infer/requests/request_file.h"

namespace tessera {

/// {"id", "custom_id", "response", "error"}; of a request that failed, "response" is null.
/// @param digits  24 hex digits that belong to this line alone: its ids are made of them
Json openai_result(const AskedLine&, std::span<const Request>, std::span<const RequestResult>, const Tokenizer&,
                   const std::string& digits);

}  // namespace tessera
