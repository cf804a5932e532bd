#include "infer/beams.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/functions/functions.h"
#include "infer/sampler.h"
#include "infer/shortlist.h"

namespace tessera {
namespace {

double length_factor(int64_t tokens, const Beams& beams) {
  return functions::pow(static_cast<double>(tokens), beams.length_penalty);
}

}  // namespace

BeamSearch::BeamSearch(const Request& request, BeamScratch& scratch, int64_t most_tokens, ContinuationText text)
    : request_(request),
      scratch_(scratch),
      width_(static_cast<size_t>(request.beams.width)),
      most_tokens_(most_tokens),
      beams_(1) {
  TS_CHECK(request.beams.width > 0 && most_tokens > 0, "{} beams of {} tokens", request.beams.width, most_tokens);
  TS_CHECK(request.n <= request.beams.width, "{} outputs of {} beams", request.n, request.beams.width);
  beams_.front().text = std::move(text);
}

std::vector<BeamMove> BeamSearch::advance(std::span<const BeamRow> rows) {
  TS_CHECK(rows.size() == beams_.size() && !done(), "{} rows for {} beams", rows.size(), beams_.size());
  ++tokens_;
  const std::vector<Candidate> ranked = rank(rows);
  const bool last_step = tokens_ == most_tokens_;
  const Finish at_limit = most_tokens_ < request_.max_tokens ? Finish::max_position : Finish::max_new_tokens;
  std::vector<BeamMove> moves;
  std::vector<Beam> next;
  for (size_t place = 0; place < ranked.size() && (place < width_ || next.size() < width_); ++place) {
    const BeamMove move = ranked[place].move;
    Beam beam = extended(ranked[place], rows[static_cast<size_t>(move.parent)]);
    const bool stops = beam.text.stopped() || is_stop_id(move.token);
    if (!stops && !last_step) {
      if (next.size() == width_) continue;
      next.push_back(std::move(beam));
      moves.push_back(move);
    } else if (place < width_) {
      finish(std::move(beam), stops ? Finish::stop : at_limit);
    }
  }
  beams_ = std::move(next);
  if (can_improve()) return moves;
  beams_.clear();
  return {};
}

/// The likeliest continuations of all beams, the likeliest first.
std::vector<BeamSearch::Candidate> BeamSearch::rank(std::span<const BeamRow> rows) {
  const auto is_likelier = [](const Candidate& a, const Candidate& b) {
    if (a.sum != b.sum) return a.sum > b.sum;
    return a.move.parent != b.move.parent ? a.move.parent < b.move.parent : a.move.token < b.move.token;
  };
  // With each stop id, every beam may end: so many that `width` go on all the same.
  const size_t count = std::max(size_t{2}, 1 + request_.stop_ids.size()) * width_;
  Shortlist<Candidate, decltype(is_likelier)> best(count, is_likelier);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::span<const double> values = find_values(rows[i], beams_[i]);
    for (size_t id = 0; id < values.size(); ++id)
      if (values[id] > -std::numeric_limits<double>::infinity())
        best.offer({beams_[i].sum + values[id], {static_cast<int64_t>(i), static_cast<int32_t>(id)}});
  }
  return best.take();
}

/// A beam's logprobs, changed as the request asks for; −∞ for what it forbids.
std::span<const double> BeamSearch::find_values(const BeamRow& row, const Beam& beam) {
  std::vector<double>& values = scratch_.values;
  TS_CHECK(row.logits.size() == values.size(), "{} logits, expected {}", row.logits.size(), values.size());
  require_finite(row.logits);
  for (size_t id = 0; id < values.size(); ++id) values[id] = row.normaliser.logprob(row.logits[id]);
  if (LogitSteps::change(request_, tokens_ - 1)) scratch_.steps.apply(request_, {request_.prompt, beam.ids}, values);
  return values;
}

BeamSearch::Beam BeamSearch::extended(const Candidate& candidate, const BeamRow& row) const {
  const int32_t token = candidate.move.token;
  Beam beam = beams_[static_cast<size_t>(candidate.move.parent)];
  beam.sum = candidate.sum;
  beam.cumulative += row.normaliser.logprob(row.logits[static_cast<size_t>(token)]);
  // A stop id counts, but does not belong to the continuation.
  if (is_stop_id(token)) return beam;
  beam.ids.push_back(token);
  beam.text.append(token);
  if (request_.logprobs >= 0)
    beam.logprobs.push_back(logprobs_of(row.logits, row.normaliser, token, request_.logprobs));
  return beam;
}

void BeamSearch::finish(Beam beam, Finish how) {
  const double score = beam.sum / length_factor(tokens_, request_.beams);
  // Behind its equals, which were there before.
  const auto place =
      std::find_if(finished_.begin(), finished_.end(), [&](const Hypothesis& other) { return other.score < score; });
  finished_.insert(place, {score, std::move(beam), how});
  if (finished_.size() > width_) finished_.pop_back();
}

bool BeamSearch::is_stop_id(int32_t token) const {
  return std::find(request_.stop_ids.begin(), request_.stop_ids.end(), token) != request_.stop_ids.end();
}

bool BeamSearch::can_improve() const {
  if (beams_.empty()) return false;
  if (finished_.size() < width_) return true;
  const Beams& options = request_.beams;
  if (options.early_stopping == EarlyStopping::yes) return false;
  // Each further token makes the sum smaller; with a penalty above 0 its divisor grows with the length.
  const bool to_the_end = options.early_stopping == EarlyStopping::never && options.length_penalty > 0;
  const double best = beams_.front().sum / length_factor(to_the_end ? most_tokens_ : tokens_, options);
  return best > finished_.back().score;
}

std::vector<Output> BeamSearch::outputs() const {
  std::vector<Output> result;
  for (const Hypothesis& h : finished_) {
    if (static_cast<int64_t>(result.size()) == request_.n) break;
    result.push_back({.ids = h.beam.ids,
                      .text = h.beam.text.text(),
                      .finish = h.finish,
                      .cumulative_logprob = h.beam.cumulative,
                      .logprobs = h.beam.logprobs});
  }
  return result;
}

}  // namespace tessera
