#pragma once
// Generation: prompts in, continuations out.

#include <string>
#include <vector>

#include "infer/sampler.h"
#include "model/model.h"

namespace tessera {

struct GenerateOptions {
  int64_t max_new_tokens = 64;
  Sampling sampling = {};          // greedy by default
  uint64_t seed = 0;               // of sampling
  std::vector<int32_t> stop = {};  // ids that end a continuation (EOS)
  int64_t batch = 16;              // sequences that are continued together
};

struct Generated {
  std::vector<int32_t> ids;  // without the prompt and without the stop token
  Finish finish = Finish::max_new_tokens;
  std::string fault = {};  // with Finish::failed: what went wrong behind the last of `ids`
};

/// Continues every prompt. `options.batch` sequences share a pass, and one that ends makes room for the next prompt. A
/// pass feeds each sequence its new tokens only (the key-value cache holds the others), and prompts in pieces, so that
/// memory does not grow with them beyond the cache.
/// A draw is a function of (seed, number of the prompt, number of the new token); which prompts share a pass can change
/// a token only through the rounding of sums.
/// A sequence whose logits are not finite fails; the others go on.
/// The bound adapter, if any, must be assembled. Scratch: plan_generation_bytes.
/// @throws UserError for a prompt without tokens or with more than the model has positions
/// @throws Stopped between two passes when a stop was asked for
std::vector<Generated> generate(const Context&, Model&, const std::vector<std::vector<int32_t>>& prompts,
                                const GenerateOptions&);

/// Bytes of the arena that generate() needs, the cache included.
int64_t plan_generation_bytes(Model&, const std::vector<std::vector<int32_t>>& prompts, const GenerateOptions&,
                              int threads);

}  // namespace tessera
