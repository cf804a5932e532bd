// libFuzzer target for files of requests, and for the lines of journals of answers.
//
//   cmake -S . -B build-fuzz -DCMAKE_CXX_COMPILER=clang++ -DTESSERA_FUZZ=ON -DTESSERA_SANITIZE=address
//   cmake --build build-fuzz --target requests_fuzz
//   TOKENIZER=recipes/world/base build-fuzz/tests/requests_fuzz -max_total_time=300
//
// The first byte of an input says of which kind the rest is. What is refused is the user's fault.

#include <cstdio>
#include <cstdlib>

#include "core/crc32.h"
#include "core/error.h"
#include "infer/journal/journal_lines.h"
#include "infer/requests/request_file.h"

namespace {

using namespace tessera;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void try_requests(std::string_view text, const char* kind) {
  const char* folder = std::getenv("TOKENIZER");
  static const Tokenizer tokenizer = Tokenizer::load(folder ? folder : "recipes/world/base");
  static const RequestDefaults defaults = {.request = {.best_of = 0},
                                           .eos = {2},
                                           .adapters = {"law"},
                                           .model_name = "tiny",
                                           .vocab_size = 256,
                                           .max_position = 64};
  const RequestFile file = read_requests_text(text, "in.jsonl", kind, DataConfig(), tokenizer, defaults);
  size_t requests = 0;
  for (const AskedLine& line : file.lines) requests += line.count;
  require(requests == file.requests.size() && requests > 0, "lines and requests are not the same");
  for (const Request& request : file.requests) {
    require(!request.prompt.empty() && request.best_of >= request.n, "a request that cannot be answered");
    for (const int32_t id : request.prompt) require(id >= 0 && id < 256, "a token that the model does not have");
  }
}

/// The checksum is put right first: without that almost nothing would pass.
void try_answer(std::string_view rest) {
  const std::string line = fmt::format("{:08x} {}", crc32(rest), rest);
  const AnswerLine answer = read_answer_line(line);
  require(answer.answer.find('\n') != std::string_view::npos || answer_line(answer.number, answer.answer) == line,
          "an answer is not itself again");
}

void try_head(std::string_view line) {
  const JournalHead head = read_head_line(line);
  require(read_head_line(head_line(head)).identity.hex() == head.identity.hex(), "a head is not itself again");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  constexpr const char* kKinds[] = {"auto", "text", "records", "batch", "openai"};
  try {
    const int choice = data[0] % 7;
    if (choice < 5) try_requests(text, kKinds[choice]);
    if (choice == 5) try_answer(text);
    if (choice == 6) try_head(text);
  } catch (const UserError&) {
    // Refused.
  }
  return 0;
}
