#pragma once
// A file of requests: one a line, of one of four kinds, read and checked whole before anything is computed.
//
//   text     one prompt a line                                  answered with today's lines: prompt, completion, ..
//   records  what data.train reads: {"prompt": .., ..}          the same
//   batch    {"custom_id": .., "prompt": .., "temperature": ..} {"custom_id": .., "outputs": [..], "usage": ..}
//   openai   {"method": "POST", "url": .., "body": {..}}        {"id": .., "response": {..}, "error": null}
//
//   line -> kind -> prompt as tokens + options by their names -> Request, every default resolved
//
// A line may hold several requests: a batch line's "contexts", each answered by a line of its own, and the prompts of
// one OpenAI body, answered together. So requests and lines of answers are two lists.

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/data_config.h"
#include "data/jsonl.h"
#include "data/tokenizer.h"
#include "infer/request.h"
#include "infer/requests/request_defaults.h"

namespace tessera {

enum class RequestKind : uint8_t { text, records, batch, openai };
std::string_view name_of(RequestKind);  // "text", ..

/// What the answer to an OpenAI body repeats of it, or leaves out.
struct OpenAiBody {
  bool is_chat = false;              // else /v1/completions
  std::string model{};               // as the body says it
  bool echo = false;                 // the prompt stands in front of the text
  std::vector<std::string> texts{};  // of the prompts, one a request
};

/// What one line of answers needs beside the results of its requests.
struct AskedLine {
  std::string where{};        // "FILE:LINE", for messages
  std::string custom_id{};    // empty: none
  size_t first = 0;           // its requests: [first, first + count)
  size_t count = 1;           // above 1 for the prompts of one OpenAI body only
  TextExample example{};      // text, records: the prompt, and what a right answer would be
  int64_t prefix_tokens = 0;  // of a batch line with "prefix": how many first tokens its prompts have in common
  std::optional<OpenAiBody> openai{};
};

struct RequestFile {
  RequestKind kind = RequestKind::text;
  std::vector<Request> requests{};     // in the order of the file
  std::vector<AskedLine> lines{};      // one a line of answers, in the same order
  std::vector<std::string> notices{};  // what is to be told: names that were read as others
};

/// Reads a file of requests.
/// @param kind   "auto": what its first line says; else the name of a kind
/// @param limit  answers at most, lines behind are not read; 0: all. Text and records: data.max_documents too
/// @throws UserError with the first ten faults, "FILE:LINE: reason", and their number: no JSON, a name that is unknown
///   or given twice, a value of another type or out of its range, no prompt, no token, a token that the vocabulary does
///   not have, a prompt that is too long, an unknown adapter, a custom_id twice, a line of another kind, "messages";
///   and for a file that holds no request, or whose name says another format
RequestFile read_requests(const std::filesystem::path& file, std::string_view kind, const DataConfig&, const Tokenizer&,
                          const RequestDefaults&, int64_t limit = 0);

/// The same of a file's text that is in memory already.
/// @param file  names it in messages; how it ends counts
RequestFile read_requests_text(std::string_view text, const std::filesystem::path& file, std::string_view kind,
                               const DataConfig&, const Tokenizer&, const RequestDefaults&, int64_t limit = 0);

/// Requests of texts that stand in no file of their own: those of the recipe, and held-out data.
/// @param place  for messages: "generate.prompts", of whose third text "generate.prompts: prompt 3" is told
/// @throws UserError as read_requests
RequestFile requests_of(const std::vector<TextExample>&, const std::string& place, const DataConfig&, const Tokenizer&,
                        const RequestDefaults&);

}  // namespace tessera
