// Rows with one token behind them take the fused head of training, which forms no row of logits; rows with several, or
// whose best tokens are asked for, form logits, a few at a time. Both give the same bits.

#include "infer/prompt_scores.h"

#include <algorithm>
#include <cmath>

#include "core/device/memory.h"
#include "core/error.h"
#include "infer/sampler.h"
#include "kernels/upload.h"

namespace tessera {

PromptScores::PromptScores(std::span<const Request> requests, const BatchPlan& plan)
    : requests_(requests), plan_(plan), nodes_(requests.size(), 0) {
  for (size_t v = 1; v < plan.tree.nodes.size(); ++v) {
    const PrefixTree::Node& node = plan.tree.nodes[v];
    for (int32_t t = node.terminal_begin; t < node.terminal_end; ++t)
      nodes_[static_cast<size_t>(plan.tree.terminals[static_cast<size_t>(t)])] = static_cast<int32_t>(v);
  }
  for (size_t r = 0; r < requests.size(); ++r) {
    const Asked wanted = asked(requests[r]);
    if (!wanted.scores && !wanted.logprobs) continue;
    for (int32_t v = nodes_[r]; v > 0; v = plan.tree.nodes[static_cast<size_t>(v)].parent)
      note(requests[r], v, wanted.first);
  }
}

PromptScores::Asked PromptScores::asked(const Request& request) const {
  const bool scores = request.max_tokens == 0, logprobs = request.prompt_logprobs >= 0;
  // Logprobs of a prompt that is continued are those of all tokens with one in front of them.
  const int64_t first = scores ? request.score_from.value_or(1) : 1;
  return {scores, logprobs, static_cast<int32_t>(first)};
}

/// The request asks about the node's rows whose next tokens are `first` and later ones of its prompt.
void PromptScores::note(const Request& request, int32_t v, int32_t first) {
  const PrefixTree::Node& node = plan_.tree.nodes[static_cast<size_t>(v)];
  const auto [at, is_new] = rows_.try_emplace(v);
  NodeRows& rows = at->second;
  if (is_new) rows.from = node.end;
  rows.from = std::min(rows.from, std::max(node.begin, first - 1));
  rows.top = std::max(rows.top, request.prompt_logprobs);
  const auto inner = static_cast<size_t>(std::max(0, node.end - 1 - rows.from));
  rows.inner.resize(std::max(rows.inner.size(), inner));
  if (node.end < first || node.end >= std::ssize(request.prompt)) return;
  const int32_t token = request.prompt[static_cast<size_t>(node.end)];
  const auto same = [&](const Scored& scored) { return scored.token == token; };
  if (std::none_of(rows.last.begin(), rows.last.end(), same)) rows.last.push_back({.token = token});
}

std::vector<PromptScores::Row> PromptScores::rows_of(std::span<const Work> work, const StepPlan& plan) {
  std::vector<Row> rows;
  for (size_t i = 0; i < work.size(); ++i) {
    const auto at = rows_.find(work[i].node);
    if (at == rows_.end()) continue;
    NodeRows& asked = at->second;
    const PrefixTree::Node& node = plan_.tree.nodes[static_cast<size_t>(work[i].node)];
    const auto tokens = plan_.fed[static_cast<size_t>(node.request)];
    for (int32_t p = std::max(work[i].begin, asked.from); p < work[i].end; ++p) {
      const int32_t row = plan.first_rows[i] + p - work[i].begin;
      if (p == node.end - 1) {
        if (!asked.last.empty()) rows.push_back({row, asked.last, asked.top});
        continue;
      }
      Scored& scored = asked.inner[static_cast<size_t>(p - asked.from)];
      scored.token = tokens[static_cast<size_t>(p) + 1];
      rows.push_back({row, {&scored, 1}, asked.top});
    }
  }
  return rows;
}

void PromptScores::score(const Pass& pass, const DecoderModel& decoder, ConstView hidden, std::span<const Work> work,
                         const StepPlan& plan) {
  std::vector<Row> fused, formed;
  for (const Row& row : rows_of(work, plan)) (row.tokens.size() == 1 && row.top < 0 ? fused : formed).push_back(row);
  scored_ += std::ssize(fused) + std::ssize(formed);
  if (!fused.empty()) score_fused(pass, decoder, hidden, fused);
  const std::span<const Row> all = formed;
  for (size_t i = 0; i < all.size(); i += kRowsAtOnce)
    score_rows(pass, decoder, hidden, all.subspan(i, std::min<size_t>(kRowsAtOnce, all.size() - i)));
}

void PromptScores::score_fused(const Pass& pass, const DecoderModel& decoder, ConstView hidden,
                               std::span<const Row> rows) {
  const auto scope = pass.ctx.scratch.scope();
  std::vector<int32_t> numbers, labels;
  for (const Row& row : rows) {
    numbers.push_back(row.row);
    labels.push_back(row.tokens[0].token);
  }
  const TensorView nll = pass.ctx.scratch.allocate({std::ssize(rows)}, decoder.activations());
  const TensorView best = pass.ctx.scratch.allocate({std::ssize(rows)}, DType::i32);
  decoder.head(
      pass, hidden,
      {.rows = upload(pass.ctx, numbers), .labels = upload(pass.ctx, labels), .nll = nll, .best = best, .dhidden = {}});
  const OnHost nlls(nll), bests(best);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].tokens[0].logprob = -nlls.as<float>()[i];
    rows[i].tokens[0].is_greedy = bests.as<int32_t>()[i] == labels[i];
  }
}

void PromptScores::score_rows(const Pass& pass, const DecoderModel& decoder, ConstView hidden,
                              std::span<const Row> rows) {
  const auto scope = pass.ctx.scratch.scope();
  std::vector<int32_t> numbers;
  for (const Row& row : rows) numbers.push_back(row.row);
  const TensorView logits =
      pass.ctx.scratch.allocate({std::ssize(rows), decoder.config().vocab_size}, decoder.activations());
  decoder.logits(pass, hidden, upload(pass.ctx, numbers), logits);
  const std::vector<RowNormaliser> normalisers = normalise_rows(pass.ctx, logits);
  const OnHost there(logits);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto row = there.view().slice_rows(static_cast<int64_t>(i), static_cast<int64_t>(i) + 1).as<float>();
    const auto best = static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
    for (Scored& scored : rows[i].tokens) {
      TokenLogprobs logprobs = logprobs_of(row, normalisers[i], scored.token, std::max<int64_t>(0, rows[i].top));
      scored.logprob = logprobs.token.logprob;
      scored.is_greedy = scored.token == best;
      scored.top = std::move(logprobs.top);
    }
  }
}

void PromptScores::take(int32_t r, RequestResult& result) const {
  const Request& request = requests_[static_cast<size_t>(r)];
  const Asked wanted = asked(request);
  if (result.error || (!wanted.scores && !wanted.logprobs)) return;
  Scores scores{.from = wanted.first};
  for (const int32_t v : plan_.tree.path_to(nodes_[static_cast<size_t>(r)])) {
    const PrefixTree::Node& node = plan_.tree.nodes[static_cast<size_t>(v)];
    const NodeRows& rows = rows_.at(v);
    // Token p + 1 under row p.
    for (int32_t p = std::max(node.begin, wanted.first - 1); p < node.end && p + 1 < std::ssize(request.prompt); ++p) {
      const int32_t token = request.prompt[static_cast<size_t>(p) + 1];
      const Scored& scored = p == node.end - 1 ? *std::find_if(rows.last.begin(), rows.last.end(),
                                                               [&](const Scored& s) { return s.token == token; })
                                               : rows.inner[static_cast<size_t>(p - rows.from)];
      if (!std::isfinite(scored.logprob)) {
        result.error = {"not_finite", fmt::format("the model's logits in front of token {} are not finite", p + 1)};
        return;
      }
      if (wanted.logprobs) {
        TokenLogprobs told{{token, scored.logprob}, scored.top};
        told.top.resize(std::min(told.top.size(), static_cast<size_t>(request.prompt_logprobs)));
        result.prompt_logprobs.push_back(std::move(told));
      }
      if (!wanted.scores) continue;
      scores.ids.push_back(token);
      scores.logprobs.push_back(scored.logprob);
      scores.greedy.push_back(scored.is_greedy);
      scores.sum += scored.logprob;
      scores.all_greedy = scores.all_greedy && scored.is_greedy;
    }
  }
  if (wanted.scores) result.scores = std::move(scores);
}

}  // namespace tessera
