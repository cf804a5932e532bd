#include "data/token_data.h"

namespace tessera {

TokenData answers_only(TokenData data) {
  if (data.choices == 0) return data;
  TokenData answers{.tokens = {},
                    .scored = {},
                    .ends = {},
                    .has_prompt = {},
                    .hash = std::move(data.hash),
                    .choices = 0,
                    .answers = {}};
  for (size_t example = 0; example < data.answers.size(); ++example) {
    const int64_t d = static_cast<int64_t>(example) * data.choices + data.answers[example];
    const int64_t begin = d == 0 ? 0 : data.ends[d - 1], end = data.ends[d];
    answers.tokens.insert(answers.tokens.end(), data.tokens.begin() + begin, data.tokens.begin() + end);
    answers.scored.insert(answers.scored.end(), data.scored.begin() + begin, data.scored.begin() + end);
    answers.ends.push_back(static_cast<int64_t>(answers.tokens.size()));
    if (!data.has_prompt.empty()) answers.has_prompt.push_back(data.has_prompt[static_cast<size_t>(d)]);
  }
  return answers;
}

}  // namespace tessera
