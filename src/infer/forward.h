#pragma once
// infer/: forward passes only: generation with a key-value cache, scores of whole texts.

#include "model/decoder.h"

namespace tessera {

/// Embeddings and every block, keeping nothing for a backward pass.
/// @return hidden [tokens, hidden_size] before the final norm, from the pass's scratch: open a scope around the call
TensorView run_blocks(const Pass&, const DecoderModel&, AttentionContext&);

/// The context of a dry run that counts memory in `arena`, a counting one.
Context counting_context(Arena& arena, int threads);

}  // namespace tessera
