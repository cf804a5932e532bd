#pragma once
// Tokens that a test makes up.

#include "data/token_data.h"

namespace tessera::test {

/// Documents of one length whose tokens are all scored. @param token  (document, place) -> id
template <class Token> TokenData token_data(int64_t documents, int64_t length, Token&& token) {
  TokenData data;
  for (int64_t d = 0; d < documents; ++d) {
    for (int64_t t = 0; t < length; ++t) {
      data.tokens.push_back(static_cast<int32_t>(token(d, t)));
      data.scored.push_back(1);
    }
    data.ends.push_back(static_cast<int64_t>(data.tokens.size()));
  }
  data.hash = "made up";
  return data;
}

/// The same with tokens of a vocabulary of 23, as tiny models have it.
inline TokenData token_data(int64_t documents, int64_t length) {
  return token_data(documents, length, [](int64_t d, int64_t t) { return (3 * d + t + t * t / 3) % 23; });
}

}  // namespace tessera::test
