#include "cli/jobs/generate_config.h"

#include <fmt/core.h>

#include <algorithm>

#include "infer/requests/request_limits.h"

namespace tessera {
namespace {

constexpr int64_t kStepTokens = 256;  // of a pass on the CPU: products are at their full speed

PrefixMode prefix_mode(const std::string& name) {
  if (name == "level1-exact") return PrefixMode::level1_exact;
  if (name == "level1-greedy") return PrefixMode::level1_greedy;
  if (name == "sort") return PrefixMode::sort;
  return name == "off" ? PrefixMode::off : PrefixMode::tree;
}

EarlyStopping early_stopping_of(const std::string& name) {
  if (name == "never") return EarlyStopping::never;
  return name == "true" ? EarlyStopping::yes : EarlyStopping::no;
}

DType kv_dtype(const std::string& name) {
  if (name == "bf16") return DType::bf16;
  if (name == "f16") return DType::f16;
  return name == "int8" ? DType::i8 : DType::f32;
}

}  // namespace

void GenerateConfig::visit(Fields& v) {
  const auto free = OnResume::free;
  v("prompts", prompts, anything(), "texts to continue", free);
  v("prompts_file", prompts_file, anything(),
    "requests: a text file with one prompt a line, .jsonl records, a batch file, or request lines of OpenAI's batch API "
    "(docs/inference.md); without prompts and prompts_file: the held-out data",
    free);
  v("kind", kind, one_of({"auto", "text", "records", "batch", "openai"}),
    "what prompts_file holds; auto: its first line says", free);
  v("limit", limit, at_least(0), "answer only the first prompts; 0: all", free);
  v("max_new_tokens", max_new_tokens, in_range(0, 1 << 20),
    "tokens of a continuation at most; end-of-text ends it earlier; 0: prompts are scored and not continued", free);
  v("temperature", temperature, at_least(0),
    "divides the logits before a token is drawn; 0: always the most likely token", free);
  v("top_k", top_k, at_least(-1), "draw among the k most likely tokens; 0 or -1: all", free);
  v("top_p", top_p, in_range(0, 1), "draw among the fewest most likely tokens that have this share of the probability",
    free);
  v("min_p", min_p, in_range(0, 1), "draw among tokens with at least this share of the most likely one's probability",
    free);
  v("typical_p", typical_p, above(0, 1),
    "draw among the tokens whose information is nearest to the mean, as many as have this share of the probability",
    free);
  v("repetition_penalty", repetition_penalty, in_range(kSmallestRepetition, kLargestRepetition),
    "divides positive and multiplies negative logits of tokens that prompt or continuation have", free);
  v("presence_penalty", presence_penalty, in_range(-2, 2), "taken from the logit of each token of the continuation",
    free);
  v("frequency_penalty", frequency_penalty, in_range(-2, 2),
    "taken from the logit of a token of the continuation for each time it is there", free);
  v("no_repeat_ngram_size", no_repeat_ngram_size, in_range(0, 64),
    "no run of so many tokens comes twice in prompt and continuation; 0: it may", free);
  v("min_tokens", min_tokens, at_least(0), "new tokens before which a continuation does not end", free);
  v("stop", stop, anything(), "texts that end a continuation", free);
  v("ignore_eos", ignore_eos, anything(), "continuations do not end at end-of-text", free);
  v("n", n, in_range(1, 1024), "continuations of each prompt", free);
  v("best_of", best_of, in_range(0, 1024),
    "draw so many and answer the n with the largest mean log-probability a token; 0: n", free);
  v("num_beams", num_beams, in_range(1, kMostBeams),
    "search for the likeliest continuations by so many beams, of which the n best are answered; 1: no search", free);
  v("length_penalty", length_penalty, in_range(-kLargestLengthPower, kLargestLengthPower),
    "a searched continuation of so many tokens scores the sum of their log-probabilities / tokens ^ this", free);
  v("early_stopping", early_stopping, one_of({"false", "true", "never"}),
    "a search ends when as many continuations as beams have ended (true), and the best beam, at its length (false) or "
    "at the largest one (never), would score no better than they do",
    free);
  v("logprobs", logprobs, in_range(-1, 64),
    "tell the log-probability of each new token and of so many of the most likely ones; -1: none", free);
  v("prompt_logprobs", prompt_logprobs, in_range(-1, 64), "the same of the prompt's tokens", free);
  v("seed", seed, at_least(0), "of the draws of requests that have none of their own", free);
  v("prefix", prefix, one_of({"tree", "level1-exact", "level1-greedy", "sort", "off"}),
    "what prompts share: every common prefix, one prefix each (the best choice, or BatchLLM's), or nothing", free);
  v("deterministic", deterministic, anything(),
    "the bits of an answer do not depend on what else is in the batch, nor on memory and steps", free);
  v("page", page, in_range(8, 128), "tokens that a page of keys and values holds: 8, 16, 32, 64 or 128", free);
  v("kv_dtype", kv_dtype, one_of({"auto", "f32", "bf16", "f16", "int8"}),
    "of keys and values in the cache; auto: f32, as they are computed", free);
  v("memory_gib", memory_gib, in_range(0, 4096),
    "for keys, values and adapters by name, of each rank; 0: what the batch can use, at most 80 % of what is free",
    free);
  v("max_sequences", max_sequences, in_range(0, 1 << 20), "continued together at most; 0: as a step has tokens", free);
  v("batch", batch, in_range(1, 4096), "the name that older recipes have for max_sequences", free);
  v("step_tokens", step_tokens, in_range(0, 65536), "tokens of a pass at most, 16 or more; 0: 256", free);
  v("high_water", high_water, in_range(0.5, 1), "share of the pages up to which new prompts are begun", free);
  v("reserve", reserve, in_range(0, 1),
    "share of what begun continuations may still need that is kept free; 1: none is ever computed again", free);
  v("adapter", adapter, anything(),
    "name of the adapter that answers requests which name none: one of [generate.adapters], whose keys are names of "
    "adapters and whose values their folders; \"base\": none; empty: what the run's folder holds",
    free);
  v("max_step_adapters", max_step_adapters, in_range(1, 1024), "adapters whose requests are computed together, at most",
    free);
  v("output", output, anything(), "name of a .jsonl file inside the run's folder: one JSON record a request", free);
  v("follow", follow, anything(),
    "name of a second .jsonl file there, to which records are added as requests end; empty: none", free);
}

void GenerateConfig::check(SectionCheck& own) const {
  const auto check_name = [&](const std::string& key, const std::string& name) {
    const std::filesystem::path file = name;
    if (std::any_of(name.begin(), name.end(), [](unsigned char c) { return c < ' '; }))
      own.fault(key, fmt::format("generate.{} has a control character", key), "give a plain file name");
    if (name.size() > 255)
      own.fault(key, fmt::format("generate.{} is a name of {} bytes", key, name.size()),
                "a file's name has 255 at most");
    if (file.filename() != file || file.extension() != ".jsonl" || name == "metrics.jsonl")
      own.fault(
          key, fmt::format("generate.{} is \"{}\"", key, name),
          "give a plain file name that ends in .jsonl, and not metrics.jsonl: it is written into the run's folder");
  };
  check_name("output", output);
  if (!follow.empty()) check_name("follow", follow);
  if (follow == output)
    own.fault("follow", fmt::format("generate.follow and generate.output are both \"{}\"", follow),
              "give them different names");
  if (batch && max_sequences)
    own.fault("batch", "generate.batch is the older name of generate.max_sequences, and both are given",
              "leave generate.batch out");
  if (best_of > 0 && best_of < n)
    own.fault("best_of", fmt::format("generate.best_of is {}, but generate.n is {}", best_of, n),
              "draw at least as many continuations as are answered");
  if (page != 8 && page != 16 && page != 32 && page != 64 && page != 128)
    own.fault("page", fmt::format("generate.page is {}", page), "give 8, 16, 32, 64 or 128");
  if (step_tokens > 0 && step_tokens < 16)
    own.fault("step_tokens", fmt::format("generate.step_tokens is {}", step_tokens), "give 16 or more, or 0");
  for (const std::string& text : stop)
    if (text.empty()) own.fault("stop", "generate.stop holds an empty text", "every continuation would end at once");
  if (max_new_tokens == 0 && (n > 1 || best_of > 1))
    own.fault("n", "several continuations of no token are asked for", "raise generate.max_new_tokens, or leave n out");
  if (num_beams > 1) check_beams(own);
}

void GenerateConfig::check_beams(SectionCheck& own) const {
  const std::string beams = fmt::format("generate.num_beams is {}", num_beams);
  if (max_new_tokens == 0)
    own.fault("num_beams", beams + " and generate.max_new_tokens 0: there is nothing to search for",
              "raise generate.max_new_tokens, or leave num_beams out");
  if (temperature > 0)
    own.fault("num_beams",
              fmt::format("{} and generate.temperature {}: beams are searched without draws", beams, temperature),
              "leave one of them out");
  if (n > num_beams)
    own.fault("n", fmt::format("{} and generate.n {}: there are no more answers than beams", beams, n),
              "raise num_beams, or lower n");
  if (best_of > n)
    own.fault("best_of", fmt::format("{} and generate.best_of {}: n of the beams are answered", beams, best_of),
              "leave best_of out");
}

Request GenerateConfig::request() const {
  Request request;
  request.sampling = {.temperature = temperature,
                      .top_k = top_k,
                      .top_p = top_p,
                      .min_p = min_p,
                      .typical_p = typical_p,
                      .repetition_penalty = repetition_penalty,
                      .presence_penalty = presence_penalty,
                      .frequency_penalty = frequency_penalty,
                      .no_repeat_ngram_size = no_repeat_ngram_size,
                      .min_tokens = min_tokens};
  request.adapter = adapter;
  request.n = n;
  request.best_of = best_of;
  request.beams = {num_beams, length_penalty, early_stopping_of(early_stopping)};
  request.max_tokens = max_new_tokens;
  request.stop = stop;
  request.logprobs = logprobs;
  request.prompt_logprobs = prompt_logprobs;
  return request;
}

EngineOptions GenerateConfig::engine() const {
  return {.prefix = prefix_mode(prefix),
          .deterministic = deterministic,
          .page_tokens = page,
          .kv_dtype = tessera::kv_dtype(kv_dtype),
          .step_tokens = step_tokens > 0 ? step_tokens : kStepTokens,
          .max_sequences = max_sequences.value_or(batch.value_or(0)),
          .high_water = high_water,
          .reserve = reserve,
          .max_step_adapters = max_step_adapters};
}

}  // namespace tessera
