#pragma once
// What is asked of the engine, and what it answers. Names are those that batch files use.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera {

/// How a token is chosen from a row of logits; the steps and their order stand in infer/sampler.h. Each field's default
/// switches it off.
struct Sampling {
  double temperature = 0;  // logits are divided by it; 0: always the most likely token
  int64_t top_k = 0;       // 0 or -1: all
  double top_p = 1, min_p = 0, typical_p = 1;
  double repetition_penalty = 1;                       // of tokens of prompt and output
  double presence_penalty = 0, frequency_penalty = 0;  // of tokens of the output
  int64_t no_repeat_ngram_size = 0;
  int64_t min_tokens = 0;  // new tokens before which no stop token may come
  std::vector<std::pair<int32_t, double>> logit_bias{};
  std::optional<std::vector<int32_t>> allowed_token_ids{};
  std::vector<std::vector<int32_t>> bad_words{};  // as tokens, each at least one
};

enum class EarlyStopping : uint8_t { no, yes, never };

/// Search by beams in place of draws.
struct Beams {
  int64_t width = 1;  // 1: none
  double length_penalty = 1;
  EarlyStopping early_stopping = EarlyStopping::no;
};

/// One line of a batch, with every default resolved.
struct Request {
  std::string custom_id{};  // empty: none
  std::vector<int32_t> prompt{};
  std::string adapter{};          // a name of the engine's adapters; empty: its default
  int64_t activation_offset = 0;  // the adapter acts on the prompt's tokens from this one on, and on all new ones
  std::string cache_salt{};
  Sampling sampling{};
  Beams beams{};
  int64_t n = 1, best_of = 1;  // n of best_of samples are answered
  int64_t max_tokens = 64;
  std::optional<int64_t> score_from{};  // with max_tokens = 0: score the prompt's tokens from this one on
  std::vector<int32_t> stop_ids{};      // end a continuation and do not belong to it; eos too, unless it is ignored
  std::vector<std::string> stop{};      // texts that end it
  bool include_stop_str_in_output = false, skip_special_tokens = true;
  int64_t logprobs = -1, prompt_logprobs = -1;  // how many of the best are told beside each token's own; -1: nothing
  uint64_t seed = 0;                            // of its draws (see draw_uniform)
};

/// Why a continuation ended. A length of the request, or the last position the model was set up for.
enum class Finish : uint8_t { stop, max_new_tokens, max_position, failed };
std::string_view name_of(Finish);

/// Natural logarithms of probabilities under the model's logits, whatever the sampling.
struct TokenLogprob {
  int32_t id = -1;
  float logprob = 0;
};
struct TokenLogprobs {
  TokenLogprob token;
  std::vector<TokenLogprob> top{};  // the most likely first; the lower id first on a tie
};

struct Output {
  std::vector<int32_t> ids{};  // without the prompt and without the stop token
  std::string text{};
  Finish finish = Finish::max_new_tokens;
  double cumulative_logprob = 0;          // of ids, and of a stop token behind them
  std::vector<TokenLogprobs> logprobs{};  // of ids, where asked for
};

/// Tokens of the prompt from `from` on, each under the tokens before it.
struct Scores {
  int64_t from = 1;
  std::vector<int32_t> ids{};
  std::vector<float> logprobs{};
  std::vector<uint8_t> greedy{};  // whether it is the most likely one (the lowest id on a tie)
  double sum = 0;                 // of logprobs, ascending
  bool all_greedy = true;
};

struct RequestError {
  std::string code, message;
};

struct RequestResult {
  std::vector<Output> outputs{};  // n of them
  std::optional<Scores> scores{};
  std::vector<TokenLogprobs> prompt_logprobs{};  // of tokens 1 .. of the prompt, where asked for
  std::optional<RequestError> error{};           // then the outputs hold nothing
  int64_t cached_tokens = 0;  // the longest prefix that the prompt shares with a request of a lower number
};

}  // namespace tessera
