#include "infer/answers.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "infer/draws.h"

namespace tessera {
namespace {

/// Places of the n samples with the largest mean logprob a token, in the order of the samples; ties to the lower one.
std::vector<size_t> best_samples(std::span<const Output> samples, int64_t n) {
  std::vector<size_t> places(samples.size());
  std::iota(places.begin(), places.end(), size_t{0});
  if (n == std::ssize(samples)) return places;
  const auto mean = [&](size_t i) {
    return samples[i].cumulative_logprob / static_cast<double>(std::max<size_t>(1, samples[i].ids.size()));
  };
  std::stable_sort(places.begin(), places.end(), [&](size_t a, size_t b) { return mean(a) > mean(b); });
  places.resize(static_cast<size_t>(n));
  return places;
}

}  // namespace

Answers::Answers(std::span<const Request> requests, const BatchPlan& plan, Schedule& schedule,
                 const Tokenizer* tokenizer, int64_t vocab, bool cumulative_logprobs)
    : requests_(requests),
      plan_(plan),
      schedule_(schedule),
      chooser_(vocab),
      beam_scratch_(vocab),
      tails_(static_cast<size_t>(schedule.tails())),
      samples_(static_cast<size_t>(schedule.sequences())),
      results_(requests.size()),
      cumulative_logprobs_(cumulative_logprobs) {
  for (const Demand& demand : plan.demands) left_.push_back(demand.samples);
  if (!tokenizer) return;
  for (size_t s = 0; s < samples_.size(); ++s)
    samples_[s].text = ContinuationText(*tokenizer, request_of(static_cast<int32_t>(s)));
}

bool Answers::wants_logprobs(int32_t s) const {
  const Request& request = request_of(s);
  return cumulative_logprobs_ || request.logprobs >= 0 || request.best_of > request.n || is_search(s);
}

void Answers::extend(int32_t s, std::span<const float> logits, const RowNormaliser* normaliser) {
  if (!schedule_.is_live(s)) return;  // its request has failed in this step
  try {
    choose(s, logits, normaliser);
  } catch (const UserError& fault) {
    fail(schedule_.request_of(s), {"not_finite", fault.message()});
  }
}

void Answers::choose(int32_t s, std::span<const float> logits, const RowNormaliser* normaliser) {
  const int32_t r = schedule_.request_of(s), sample = s - schedule_.first_sequence(r);
  const Request& request = requests_[static_cast<size_t>(r)];
  std::vector<int32_t>& tail = tails_[static_cast<size_t>(schedule_.first_tail(s))];
  Output& output = samples_[static_cast<size_t>(s)].output;
  const double uniform = request.sampling.temperature > 0 ? draw_uniform(request.seed, sample, std::ssize(tail)) : 0;
  const auto id = chooser_.choose(logits, request, request.prompt, tail, uniform);
  if (!id) return fail(r, {"no_token", "no token is allowed"});
  const bool stops = std::find(request.stop_ids.begin(), request.stop_ids.end(), *id) != request.stop_ids.end();
  if (normaliser) {
    output.cumulative_logprob += normaliser->logprob(logits[static_cast<size_t>(*id)]);
    if (request.logprobs >= 0 && !stops)
      output.logprobs.push_back(logprobs_of(logits, *normaliser, *id, request.logprobs));
  }
  ++generated_;
  if (stops) return end(s, Finish::stop);
  tail.push_back(*id);
  const Demand& demand = plan_.demands[static_cast<size_t>(r)];
  if (samples_[static_cast<size_t>(s)].text.append(*id)) return end(s, Finish::stop);
  if (std::ssize(tail) < demand.new_tokens) return schedule_.append(s);
  end(s, demand.new_tokens == request.max_tokens ? Finish::max_new_tokens : Finish::max_position);
}

void Answers::extend_search(int32_t s, std::span<const BeamRow> rows) {
  if (!schedule_.is_live(s)) return;  // its request has failed in this step
  try {
    search(s, rows);
  } catch (const UserError& fault) {
    fail(schedule_.request_of(s), {"not_finite", fault.message()});
  }
}

void Answers::search(int32_t s, std::span<const BeamRow> rows) {
  const int32_t r = schedule_.request_of(s);
  BeamSearch& search =
      searches_
          .try_emplace(s, request_of(s), beam_scratch_, plan_.demands[static_cast<size_t>(r)].new_tokens,
                       samples_[static_cast<size_t>(s)].text)
          .first->second;
  const std::vector<BeamMove> moves = search.advance(rows);
  generated_ += std::ssize(rows);
  if (search.done()) {
    std::vector<Output> outputs = search.outputs();
    if (outputs.empty()) return fail(r, {"no_token", "no token is allowed"});
    results_[static_cast<size_t>(r)].outputs = std::move(outputs);
    searches_.erase(s);
    return end(s, Finish::stop);
  }
  const auto first = static_cast<size_t>(schedule_.first_tail(s));
  std::vector<int32_t> parents;
  for (size_t i = 0; i < moves.size(); ++i) {
    parents.push_back(static_cast<int32_t>(moves[i].parent));
    const std::span<const int32_t> ids = search.ids(i);
    tails_[first + i].assign(ids.begin(), ids.end());
  }
  schedule_.branch(s, parents);
}

void Answers::end(int32_t s, Finish finish) {
  const int32_t r = schedule_.request_of(s);
  samples_[static_cast<size_t>(s)].output.finish = finish;
  schedule_.finish(s);
  if (--left_[static_cast<size_t>(r)] == 0) ended_.push_back(r);
}

void Answers::end_prompt(int32_t r) {
  if (!results_[static_cast<size_t>(r)].error) ended_.push_back(r);
}

void Answers::fail(int32_t r, RequestError error) {
  RequestResult& result = results_[static_cast<size_t>(r)];
  if (result.error) return;
  result.error = std::move(error);
  const int32_t first = schedule_.first_sequence(r), samples = plan_.demands[static_cast<size_t>(r)].samples;
  for (int32_t s = first; s < first + samples; ++s) {
    if (schedule_.is_open(s)) samples_[static_cast<size_t>(s)].output.finish = Finish::failed;
    searches_.erase(s);
  }
  schedule_.cancel(r);
  ended_.push_back(r);
}

RequestResult Answers::take(int32_t r) {
  const Request& request = requests_[static_cast<size_t>(r)];
  RequestResult result = std::move(results_[static_cast<size_t>(r)]);
  result.cached_tokens = plan_.cached[static_cast<size_t>(r)];
  // How far its samples had come hangs on the schedule: nothing is told of them.
  if (result.error) {
    result.outputs.assign(static_cast<size_t>(request.n), {.finish = Finish::failed});
    return result;
  }
  if (plan_.demands[static_cast<size_t>(r)].samples == 0) {
    result.outputs.push_back({.finish = Finish::max_new_tokens});
    return result;
  }
  const auto first = static_cast<size_t>(schedule_.first_sequence(r));
  const auto first_tail = static_cast<size_t>(schedule_.first_tail(schedule_.first_sequence(r)));
  if (request.beams.width > 1) {
    for (size_t i = 0; i < static_cast<size_t>(request.beams.width); ++i) tails_[first_tail + i] = {};
    return result;
  }
  std::vector<Output> samples;
  for (size_t j = 0; j < static_cast<size_t>(request.best_of); ++j) {
    Sample& sample = samples_[first + j];
    sample.output.ids = std::move(tails_[first_tail + j]);
    sample.output.text = sample.text.text();
    samples.push_back(std::move(sample.output));
    sample.text = {};
  }
  for (const size_t place : best_samples(samples, request.n)) result.outputs.push_back(std::move(samples[place]));
  return result;
}

}  // namespace tessera
