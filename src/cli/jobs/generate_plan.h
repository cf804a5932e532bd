#pragma once
// What answering requests takes, and which of them a rank answers.

#include <algorithm>
#include <span>
#include <vector>

#include "cli/jobs/generate_adapters.h"
#include "cli/plan.h"
#include "data/tokenizer.h"
#include "infer/engine.h"
#include "infer/requests/request_file.h"

namespace tessera {

/// The requests of a recipe, tokenised and checked, with what they are asked of.
struct Asked {
  Tokenizer tokenizer;
  std::vector<int32_t> eos;
  RequestFile file;
  NamedAdapters adapters{};
  std::vector<AdapterFigures> figures{};  // of the adapters
  bool is_inline = false;                 // the recipe itself holds the prompts

  int64_t positions() const {  // the most that a request takes
    int64_t most = 1;
    for (const Request& r : file.requests) most = std::max(most, std::ssize(r.prompt) + r.max_tokens);
    return most;
  }
};

/// What a rank takes to answer its share of some requests, and how it is computed.
struct Planned {
  PrefixStatistics statistics{};     // of these requests on all ranks
  std::vector<int64_t> cached{};     // of each of them
  std::vector<size_t> numbers{};     // of the share's requests in the file
  std::vector<Request> copies{};     // of a share that is not the whole file
  std::span<const Request> share{};  // these, or the file's
  BatchPlan batch{};                 // of the share
  EngineMemory memory{}, largest{};  // of this rank; the most that any rank takes
  int64_t new_tokens = 0;            // of all ranks, when every continuation becomes as long as it may
  int64_t to_compute = 0;            // of all ranks, tokens of prompts
  double expected_new = 0;           // as new_tokens, when it becomes as long as it is expected to
  JobPlan job{};

  void pick(const RequestFile& file, std::vector<size_t> picked) {
    numbers = std::move(picked);
    copies.clear();
    share = file.requests;
    if (numbers.size() == file.requests.size()) return;
    for (const size_t i : numbers) copies.push_back(file.requests[i]);
    share = copies;
  }
};

/// Of these requests of the file, ascending, the share of this rank. A collective: ranks of a machine share its memory.
/// @throws UserError on every rank when a request does not fit alone
Planned plan_requests(const JobInputs&, const Asked&, std::vector<size_t> numbers);

/// The numbers of all requests.
std::vector<size_t> all_of(const RequestFile&);

}  // namespace tessera
