#pragma once
// Bounds of a request's numbers, the same in a recipe's [generate] and in a line of a file of requests.

#include <cstdint>

namespace tessera {

constexpr int64_t kMostNewTokens = 1 << 20;
constexpr int64_t kMostSamples = 1024;  // n, best_of
constexpr int64_t kMostBeams = 64;      // num_beams
constexpr int64_t kMostLogprobs = 64;   // logprobs, prompt_logprobs
constexpr int64_t kLongestNgram = 64;   // no_repeat_ngram_size
constexpr double kLargestPenalty = 2;   // presence_penalty, frequency_penalty, of either sign
constexpr double kSmallestRepetition = 1e-3, kLargestRepetition = 10;  // repetition_penalty
constexpr double kLargestLengthPower = 5;                              // length_penalty, of either sign

}  // namespace tessera
