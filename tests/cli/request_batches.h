#pragma once
// Files of requests for tests of the program.

#include <fmt/core.h>

#include <string>
#include <vector>

#include "core/json.h"

namespace tessera::test {

/// Requests of few-shot questions with headers of three kinds, drawn and greedy, some with several samples.
inline std::string batch_file(int lines) {
  const std::vector<std::string> headers = {"copy da di = da di . copy do = do . ", "first da di = da . ", ""};
  const std::vector<std::string> words = {"da", "di", "do", "mi", "ko", "vu"};
  std::string text;
  for (int i = 0; i < lines; ++i) {
    Json line = Json::object()
                    .set("custom_id", fmt::format("q{}", i))
                    .set("prompt", headers[static_cast<size_t>(i) % 3] + "copy " + words[static_cast<size_t>(i) % 6] +
                                       " " + words[static_cast<size_t>(i / 6) % 6] + " =")
                    .set("max_tokens", 3 + i % 9);
    if (i % 4 == 1) line.set("temperature", 1.2).set("n", 1 + i % 3);
    if (i % 5 == 2) line.set("logprobs", 2);
    text += line.dump() + "\n";
  }
  return text;
}

}  // namespace tessera::test
