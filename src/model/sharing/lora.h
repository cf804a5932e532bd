#pragma once
// LoRA, the plain low-rank adapter.

#include "model/sharing/adapter.h"

namespace tessera {

/// LoRA: every adapted weight has A [r, in] ~ U(±1/sqrt(in)) and Bt [r, out] = 0 of its own.
/// Hu et al. 2021, arXiv:2106.09685.
std::unique_ptr<Adapter> make_lora(const AdapterConfig&, const KeyPlaces& where);

}  // namespace tessera
