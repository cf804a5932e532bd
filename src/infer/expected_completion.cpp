#include "infer/expected_completion.h"

#include <algorithm>

namespace tessera {

ExpectedCompletion expected_completion(const Tokenizer& tokenizer, const DataConfig& config, const TextExample& example,
                                       std::span<const int32_t> stop) {
  const EncodedExample encoded = encode_example(tokenizer, config, example);
  const auto begin = encoded.tokens.begin() + static_cast<ptrdiff_t>(encoded.prompt_tokens);
  const auto is_stop = [&](int32_t id) { return std::ranges::find(stop, id) != stop.end(); };
  const auto end = std::find_if(begin, encoded.tokens.end(), is_stop);
  return {{begin, end}, end != encoded.tokens.end()};
}

bool is_right(const Tokenizer& tokenizer, std::span<const int32_t> prompt, const ExpectedCompletion& expected,
              const Output& result) {
  if (result.finish == Finish::failed || (expected.ends && result.finish != Finish::stop)) return false;
  std::span<const int32_t> found = result.ids;
  if (!expected.ends) found = found.first(std::min(found.size(), expected.ids.size()));
  return tokenizer.decode_after(prompt, found, true) == tokenizer.decode_after(prompt, expected.ids, true);
}

}  // namespace tessera
