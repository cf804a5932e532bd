#pragma once
// Whether a continuation is the completion that a record holds.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/encoding.h"
#include "infer/request.h"

namespace tessera {

/// The completion of an example as training has it, up to the token that ends it.
struct ExpectedCompletion {
  std::vector<int32_t> ids;  // behind the prompt, without the end
  bool ends = false;         // training puts an end behind it: by its template, or as the tokenizer does
};

/// @param stop  ids that end a continuation; the first of them in the completion is its end
ExpectedCompletion expected_completion(const Tokenizer&, const DataConfig&, const TextExample&,
                                       std::span<const int32_t> stop);

/// The texts are the same, without special tokens; and where an end is expected the continuation ended by itself. Where
/// none is, a model does not know when to stop: as many tokens as are expected are compared, what follows does not
/// count. True wherever each expected token, the end included, is the most likely one and temperature is 0.
/// @param prompt  its tokens
bool is_right(const Tokenizer&, std::span<const int32_t> prompt, const ExpectedCompletion&, const Output&);

}  // namespace tessera
