#pragma once
// The random numbers of sampling. Place in the file, batch, step, rank and schedule do not enter.

#include <cstdint>
#include <span>
#include <string>

namespace tessera {

/// u(j, t) = ((b(2 t) >> 5) · 2^26 + (b(2 t + 1) >> 6)) · 2^−53 in [0, 1), where b are the words of
/// RandomStream(seed, hash_key({0x53414d504c45, j})).
/// @param seed    of the request
/// @param sample  j, number of the sample of the request, from 0
/// @param token   t, number of the new token, from 0
double draw_uniform(uint64_t seed, int64_t sample, int64_t token);

/// The seed of a request that names none: hash_key({run_seed, fnv1a(custom_id)}).
uint64_t default_seed(uint64_t run_seed, const std::string& custom_id);

/// The seed of a request without a seed and without a custom_id: hash_key({run_seed, h, earlier}) with h = fnv1a of the
/// ids of its prompt as little-endian 32-bit integers.
/// @param earlier  how many earlier requests without custom_id have the same ids
uint64_t default_seed(uint64_t run_seed, std::span<const int32_t> prompt, int64_t earlier);

}  // namespace tessera
