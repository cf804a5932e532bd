#pragma once
// Files of requests for a tokenizer whose ids are bytes, and what reading them says.

#include <string>
#include <vector>

#include "data/made_tokenizers.h"
#include "infer/requests/request_file.h"
#include "support/error_text.h"
#include "support/paths.h"

namespace tessera::test {

/// Reads texts as files. Ids of the tokenizer: bytes, 256.. are "he", "ll", "hell", "hello", " hello", 261 the end.
struct RequestFiles {
  TemporaryFolder folder;
  Tokenizer tokenizer = load(byte_level());
  DataConfig data;
  RequestDefaults defaults = {
      .eos = {261}, .seed = 7, .adapters = {"law", "tax"}, .model_name = "tiny", .vocab_size = 262, .max_position = 64};
  std::string name = "in.jsonl";

  RequestFiles() { defaults.request.best_of = 0; }

  RequestFile read(const std::string& text, const std::string& kind = "auto", int64_t limit = 0) const {
    write_file(folder / name, text);
    return read_requests(folder / name, kind, data, tokenizer, defaults, limit);
  }
  Request one(const std::string& line, const std::string& kind = "auto") const {
    return read(line, kind).requests.at(0);
  }

  /// What is thrown, with the file's folder left out.
  std::string fault(const std::string& text, const std::string& kind = "auto") const {
    std::string message = error_text([&] { read(text, kind); });
    const std::string prefix = folder.path().string() + "/";
    for (size_t at; (at = message.find(prefix)) != std::string::npos;) message.erase(at, prefix.size());
    return message;
  }
};

inline std::vector<int32_t> ids_of(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

/// A line of OpenAI's batches.
inline std::string openai_line(const std::string& body, const std::string& url = "/v1/completions",
                               const std::string& id = "a") {
  return R"({"custom_id": ")" + id + R"(", "method": "POST", "url": ")" + url + R"(", "body": )" + body + "}";
}

}  // namespace tessera::test
