#include "infer/logit_steps.h"

#include <limits>
#include <utility>

#include "core/error.h"

namespace tessera {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

bool stops_are_banned(const Request& request, int64_t output_tokens) {
  return output_tokens < request.sampling.min_tokens && !request.stop_ids.empty();
}

bool contains(std::span<const double> values, int32_t id) {
  return 0 <= id && id < static_cast<int64_t>(values.size());
}

void ban(int32_t id, std::span<double> values) {
  if (contains(values, id)) values[static_cast<size_t>(id)] = kNever;
}

void add_bias(const Sampling& sampling, std::span<double> values) {
  for (const auto& [id, bias] : sampling.logit_bias) {
    TS_CHECK(contains(values, id), "logit_bias for token {} of {}", id, values.size());
    values[static_cast<size_t>(id)] += bias;
  }
}

/// Whether the newest tokens of the history are those of `front`.
bool ends_with(const History& history, std::span<const int32_t> front) {
  const auto length = static_cast<int64_t>(front.size());
  if (history.size() < length) return false;
  for (int64_t i = 0; i < length; ++i)
    if (history[history.size() - length + i] != front[static_cast<size_t>(i)]) return false;
  return true;
}

void ban_bad_words(const Sampling& sampling, const History& history, std::span<double> values) {
  for (const std::vector<int32_t>& word : sampling.bad_words) {
    TS_CHECK(!word.empty(), "a bad word without tokens");
    if (ends_with(history, std::span<const int32_t>(word).first(word.size() - 1))) ban(word.back(), values);
  }
}

/// Whether the tokens from `at` on are the `count` newest ones.
bool repeats(const History& history, int64_t at, int64_t count) {
  // From the newest on, which differs most often.
  for (int64_t i = count - 1; i >= 0; --i)
    if (history[at + i] != history[history.size() - count + i]) return false;
  return true;
}

void ban_repeated_ngrams(int64_t n, const History& history, std::span<double> values) {
  if (n <= 0) return;
  for (int64_t at = 0; at + n <= history.size(); ++at)
    if (repeats(history, at, n - 1)) ban(history[at + n - 1], values);
}

}  // namespace

LogitSteps::LogitSteps(int64_t vocab) : counts_(static_cast<size_t>(vocab), 0) {}

bool LogitSteps::change(const Request& request, int64_t output_tokens) {
  const Sampling& s = request.sampling;
  return !s.logit_bias.empty() || s.allowed_token_ids || !s.bad_words.empty() || s.no_repeat_ngram_size > 0 ||
         stops_are_banned(request, output_tokens) || s.repetition_penalty != 1 || s.presence_penalty != 0 ||
         s.frequency_penalty != 0;
}

void LogitSteps::apply(const Request& request, const History& history, std::span<double> values) {
  TS_CHECK(values.size() == counts_.size(), "{} logits, expected {}", values.size(), counts_.size());
  const Sampling& sampling = request.sampling;
  if (sampling.allowed_token_ids) ban_others(*sampling.allowed_token_ids, values);
  add_bias(sampling, values);
  ban_bad_words(sampling, history, values);
  ban_repeated_ngrams(sampling.no_repeat_ngram_size, history, values);
  if (stops_are_banned(request, static_cast<int64_t>(history.output.size())))
    for (const int32_t id : request.stop_ids) ban(id, values);
  if (sampling.repetition_penalty != 1) penalise_repetition(sampling.repetition_penalty, history, values);
  if (sampling.presence_penalty != 0 || sampling.frequency_penalty != 0)
    penalise_counts(sampling, history.output, values);
}

int32_t& LogitSteps::count_of(int32_t id) {
  TS_CHECK(0 <= id && id < static_cast<int64_t>(counts_.size()), "token {} of {}", id, counts_.size());
  return counts_[static_cast<size_t>(id)];
}

void LogitSteps::ban_others(std::span<const int32_t> allowed, std::span<double> values) {
  for (const int32_t id : allowed)
    if (contains(values, id)) count_of(id) = 1;
  for (size_t i = 0; i < values.size(); ++i)
    if (counts_[i] == 0) values[i] = kNever;
  for (const int32_t id : allowed)
    if (contains(values, id)) count_of(id) = 0;
}

void LogitSteps::penalise_repetition(double theta, const History& history, std::span<double> values) {
  for (const auto part : {history.prompt, history.output})
    for (const int32_t id : part) {
      if (count_of(id)++ > 0) continue;
      double& l = values[static_cast<size_t>(id)];
      l = l > 0 ? l / theta : l * theta;
    }
  for (const auto part : {history.prompt, history.output})
    for (const int32_t id : part) count_of(id) = 0;
}

void LogitSteps::penalise_counts(const Sampling& sampling, std::span<const int32_t> output, std::span<double> values) {
  for (const int32_t id : output) ++count_of(id);
  for (const int32_t id : output) {
    const int32_t count = std::exchange(count_of(id), 0);
    // A token that stands there several times has had its penalty at the first of them.
    if (count > 0) values[static_cast<size_t>(id)] -= sampling.presence_penalty + sampling.frequency_penalty * count;
  }
}

}  // namespace tessera
