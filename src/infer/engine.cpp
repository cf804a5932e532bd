// One step:
//   schedule ─► rows of nodes and tails ─► forward pass over pages ─► hidden
//   hidden of prompts' rows ─► scores;  hidden of last rows ─► logits ─► tokens
// The last row of a node at which prompts end is kept while samples wait that have not begun: they cost no pass.

#include "infer/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/stop.h"
#include "infer/answers.h"
#include "infer/crossover_trial.h"
#include "infer/prompt_scores.h"
#include "infer/row_groups.h"
#include "kernels/compute.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/host_work.h"
#include "kernels/rounding.h"
#include "kernels/upload.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kLogitRows = 64;  // rows of logits that are formed at once

PlanShape shape_of(const DecoderModel& decoder, const EngineOptions& options, int threads) {
  return {decoder.config().num_attention_heads, decoder.config().num_key_value_heads, options.page_tokens, threads,
          options.deterministic};
}

/// Whether rows of different sequences may have keys in common.
bool shares_keys(const BatchPlan& plan) {
  const auto& nodes = plan.tree.nodes;
  return std::any_of(nodes.begin() + 1, nodes.end(), [](const auto& node) { return node.leaves > 1; }) ||
         std::any_of(plan.demands.begin(), plan.demands.end(), [](const Demand& d) { return d.tails() > 1; });
}

Crossover crossover_of(const Context& ctx, const DecoderModel& decoder, const BatchPlan& plan,
                       const EngineOptions& options) {
  if (options.crossover != nullptr) return *options.crossover;
  if (!shares_keys(plan)) return Crossover::always();
  const ModelConfig& c = decoder.config();
  return measured_crossover(
      ctx, {c.num_attention_heads, c.num_key_value_heads, c.head_dim, options.page_tokens, options.kv_dtype});
}

/// @param widest  the most beams of a search: they go together, and a pass has room for them in any case
ScheduleLimits limits_of(const DecoderModel& decoder, const EngineOptions& options, int64_t bundles, int64_t widest) {
  const int64_t rows = std::max(options.step_tokens, widest);
  return {.step_tokens = rows,
          .sequences = options.max_sequences > 0 ? std::clamp(options.max_sequences, widest, rows) : rows,
          .bundles = bundles,
          .pages_per_bundle = decoder.num_layers() * decoder.config().num_key_value_heads,
          .page_tokens = options.page_tokens,
          .high_water = options.high_water,
          .reserve = options.reserve,
          .adapters = options.max_step_adapters};
}

/// hidden [rows, D] of a step's rows, from scratch.
struct SteppedRows {
  TensorView hidden;
  std::vector<PageFault> faults;
  int64_t bytes_read;
};

/// logits [rows, vocab] of rows of hidden, from scratch.
TensorView logits_of(const Pass& pass, const DecoderModel& decoder, ConstView picked) {
  std::vector<int32_t> rows(static_cast<size_t>(picked.rows()));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  const TensorView logits =
      pass.ctx.scratch.allocate({picked.rows(), decoder.config().vocab_size}, decoder.activations());
  const auto scope = pass.ctx.scratch.scope();
  decoder.logits(pass, picked, upload(pass.ctx, rows), logits);
  return logits;
}

/// Rows of logits that are wanted, and by which sequences.
struct Wanted {
  int32_t row;   // of the step's hidden; -1: the row that was kept of `node`
  int32_t node;  // -1: a sequence's own row
  std::vector<int32_t> sequences;
};

bool of_one_search(const Wanted& a, const Wanted& b) { return a.sequences.front() == b.sequences.front(); }

/// How many of the front are formed at once: those of a search stay together.
size_t rows_at_once(std::span<const Wanted> wanted) {
  size_t rows = std::min<size_t>(kLogitRows, wanted.size());
  while (rows < wanted.size() && of_one_search(wanted[rows - 1], wanted[rows])) --rows;
  return rows;
}

class Engine {
 public:
  Engine(const Context& ctx, Model& model, std::span<const Request> requests, const BatchPlan& plan,
         const EngineOptions& options, int64_t bundles, const std::map<std::string, BoundAdapter*>& adapters,
         const Tokenizer* tokenizer, const EngineHooks& hooks)
      : ctx_(ctx),
        model_(model),
        decoder_(model.decoder()),
        plan_(plan),
        shape_(shape_of(decoder_, options, ctx.threads)),
        adapters_(adapters_of(plan, model, adapters)),
        hooks_(hooks),
        schedule_(plan.tree, plan.order, plan.demands, limits_of(decoder_, options, bundles, plan.widest)),
        pages_(allocate_pages(ctx.scratch, decoder_, bundles, options.page_tokens, options.kv_dtype)),
        answers_(requests, plan, schedule_, tokenizer, model.config().vocab_size, options.cumulative_logprobs),
        scores_(requests, plan) {
    shape_.crossover = crossover_of(ctx, decoder_, plan, options);
  }

  EngineCounts run() {
    for (ScheduledStep step = next(); !step.empty(); step = next()) {
      leave_if_asked("generating");
      compute(step);
      tell();
    }
    TS_CHECK(schedule_.pages().pages_in_use() == 0, "{} pages are held behind a batch",
             schedule_.pages().pages_in_use());
    return counts();
  }

 private:
  ScheduledStep next() {
    const auto begin = Clock::now();
    ScheduledStep step = schedule_.next();
    planning_ += Clock::now() - begin;
    return step;
  }

  void compute(const ScheduledStep& step) {
    const auto scope = ctx_.scratch.scope();
    const auto begin = Clock::now();
    const StepPlan plan = plan_step(schedule_, step.work, plan_.fed, answers_.tails(), shape_);
    planning_ += Clock::now() - begin;
    const std::vector<RowGroup> groups = row_groups(schedule_, step.work, plan.first_rows, plan_.weights, adapters_);
    const TokenBatch batch{upload(ctx_, plan.ids), upload(ctx_, plan.positions), {}, {}, groups};
    const Pass pass{ctx_, batch, {&model_.pool()}};
    TensorView hidden;
    copy_bundles(pages_, schedule_.pages().pages_per_bundle(), step.copies);
    if (!step.work.empty()) {
      PagedAttention attention(ctx_, plan, pages_);
      hidden = decoder_.forward(pass, attention);
      bytes_read_ += attention.bytes_read();
      fail_faulty(attention.faults(), step.work, plan);
      scores_.score(pass, decoder_, hidden, step.work, plan);
    }
    choose_tokens(pass, hidden, wanted_rows(step, plan));
    keep_awaited(hidden, step.work, plan);
    for (const int32_t r : step.prompts) answers_.end_prompt(r);
  }

  /// Requests whose path holds a number that its page does not.
  void fail_faulty(const std::vector<PageFault>& faults, std::span<const Work> work, const StepPlan& plan) {
    for (const PageFault& fault : faults) {
      const auto at = std::upper_bound(plan.first_rows.begin(), plan.first_rows.end(), fault.row) - 1;
      const Work& w = work[static_cast<size_t>(at - plan.first_rows.begin())];
      const RequestError error{
          "cache_range", fmt::format("a key or value of layer {}, key-value head {}, at position {} does not fit into "
                                     "{}: use another generate.kv_dtype",
                                     fault.layer, fault.head, plan.positions[static_cast<size_t>(fault.row)],
                                     name_of(pages_.k.dtype))};
      if (w.node < 0) {
        answers_.fail(schedule_.request_of(w.sequence), error);
        continue;
      }
      const PrefixTree::Node& node = plan_.tree.nodes[static_cast<size_t>(w.node)];
      for (int32_t t = node.terminal_begin; t < node.terminal_begin + node.leaves; ++t)
        answers_.fail(plan_.tree.terminals[static_cast<size_t>(t)], error);
    }
  }

  std::vector<Wanted> wanted_rows(const ScheduledStep& step, const StepPlan& plan) const {
    std::vector<Wanted> wanted;
    std::map<int32_t, int32_t> ends;  // node whose last row is in this step -> that row
    for (size_t i = 0; i < step.work.size(); ++i) {
      const Work& w = step.work[i];
      const int32_t last = plan.first_rows[i + 1] - 1;
      if (w.node >= 0) {
        if (w.end == plan_.tree.nodes[static_cast<size_t>(w.node)].end) ends[w.node] = last;
      } else if (w.end - schedule_.begin_of(w.sequence) ==
                 std::ssize(answers_.tails()[static_cast<size_t>(schedule_.tail_of(w))])) {
        wanted.push_back({last, -1, {w.sequence}});
      }
    }
    std::map<int32_t, size_t> places;
    for (const int32_t s : step.starts) {
      const int32_t v = schedule_.node_of(schedule_.request_of(s));
      const auto [at, is_new] = places.try_emplace(v, wanted.size());
      if (is_new) wanted.push_back({ends.contains(v) ? ends.at(v) : -1, v, {}});
      wanted[at->second].sequences.push_back(s);
    }
    return wanted;
  }

  void choose_tokens(const Pass& pass, ConstView hidden, std::span<const Wanted> wanted) {
    for (size_t i = 0, count = 0; i < wanted.size(); i += count) {
      count = rows_at_once(wanted.subspan(i));
      const auto some = wanted.subspan(i, count);
      const auto scope = ctx_.scratch.scope();
      const TensorView logits = logits_of(pass, decoder_, pick(hidden, some));
      const bool normalise = std::any_of(some.begin(), some.end(), [&](const Wanted& w) {
        return std::any_of(w.sequences.begin(), w.sequences.end(),
                           [&](int32_t s) { return answers_.wants_logprobs(s); });
      });
      const std::vector<RowNormaliser> normalisers =
          normalise ? normalise_rows(ctx_, logits) : std::vector<RowNormaliser>{};
      const OnHost there(logits);
      choose_tokens(there.view(), normalisers, some);
    }
  }

  void choose_tokens(ConstView logits, std::span<const RowNormaliser> normalisers, std::span<const Wanted> wanted) {
    std::vector<BeamRow> beams;  // of one search
    for (size_t row = 0; row < wanted.size(); ++row) {
      const auto at = static_cast<int64_t>(row);
      const auto numbers = logits.slice_rows(at, at + 1).as<float>();
      for (const int32_t s : wanted[row].sequences) {
        if (!answers_.is_search(s)) {
          answers_.extend(s, numbers, answers_.wants_logprobs(s) ? &normalisers[row] : nullptr);
          continue;
        }
        beams.push_back({numbers, normalisers[row]});
        if (row + 1 < wanted.size() && of_one_search(wanted[row], wanted[row + 1])) continue;
        answers_.extend_search(s, beams);
        beams.clear();
      }
    }
  }

  /// [rows, D]: rows of the step, and rows that were kept.
  TensorView pick(ConstView hidden, std::span<const Wanted> wanted) {
    const TensorView picked =
        ctx_.scratch.allocate({std::ssize(wanted), model_.config().hidden_size}, decoder_.activations());
    for (size_t i = 0; i < wanted.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      const Wanted& w = wanted[i];
      copy(w.row >= 0 ? hidden.slice_rows(w.row, w.row + 1) : kept_.at(w.node).view(), picked.slice_rows(at, at + 1));
    }
    return picked;
  }

  /// Rows that samples of later steps begin from; those that nobody waits for any more go.
  void keep_awaited(ConstView hidden, std::span<const Work> work, const StepPlan& plan) {
    std::erase_if(kept_, [&](const auto& kept) { return !schedule_.is_awaited(kept.first); });
    for (size_t i = 0; i < work.size(); ++i) {
      const Work& w = work[i];
      if (w.node < 0 || w.end < plan_.tree.nodes[static_cast<size_t>(w.node)].end || !schedule_.is_awaited(w.node))
        continue;
      const int32_t last = plan.first_rows[i + 1] - 1;
      Tensor row({1, hidden.cols()}, hidden.dtype, hidden.device);
      copy(hidden.slice_rows(last, last + 1), row.view());
      kept_.insert_or_assign(w.node, std::move(row));
    }
  }

  void tell() {
    for (const int32_t r : answers_.take_ended()) {
      RequestResult result = answers_.take(r);
      scores_.take(r, result);
      ++finished_;
      failed_ += result.error.has_value();
      if (hooks_.finished) hooks_.finished(r, std::move(result));
    }
    if (hooks_.stepped) hooks_.stepped(counts());
  }

  EngineCounts counts() const {
    const PagePool& pages = schedule_.pages();
    const std::vector<Crossover::Point>& points = shape_.crossover.points();
    EngineCounts counts{.finished = finished_,
                        .failed = failed_,
                        .generated = answers_.generated(),
                        .scored = scores_.scored(),
                        .schedule = schedule_.counts(),
                        .pages_in_use = pages.pages_in_use(),
                        .pages_peak = pages.peak_pages(),
                        .pages_total = pages.bundles() * pages.pages_per_bundle(),
                        .kv_bytes_read = bytes_read_,
                        .planning_seconds = std::chrono::duration<double>(planning_).count()};
    std::copy_n(points.begin(), std::min(points.size(), counts.crossover.size()), counts.crossover.begin());
    return counts;
  }

  const Context& ctx_;
  Model& model_;
  const DecoderModel& decoder_;
  const BatchPlan& plan_;
  PlanShape shape_;
  std::vector<BoundAdapter*> adapters_;  // at their numbers in the plan
  const EngineHooks& hooks_;
  Schedule schedule_;
  KeyValuePages pages_;
  Answers answers_;
  PromptScores scores_;
  std::map<int32_t, Tensor> kept_;  // last rows of nodes
  int64_t finished_ = 0, failed_ = 0, bytes_read_ = 0;
  Clock::duration planning_{};
};

/// Scratch of a pass of so many rows, whose tokens are chosen and scored. @param adapters  that rows may read
int64_t pass_bytes(Model& model, const EngineOptions& options, int64_t rows, int threads,
                   std::span<BoundAdapter* const> adapters) {
  const DecoderModel& decoder = model.decoder();
  const Compute counting = Compute::counting(model.pool().device(), threads);
  const Context& ctx = counting;
  const std::vector<Request> requests(1,
                                      {.prompt = std::vector<int32_t>(static_cast<size_t>(rows), 0), .max_tokens = 1});
  const BatchPlan batch = plan_batch(requests, PrefixMode::off, options.page_tokens, rows, threads);
  Schedule schedule(batch.tree, batch.order, batch.demands, limits_of(decoder, options, batch.most_bundles, rows));
  const ScheduledStep step = schedule.next();
  StepPlan plan = plan_step(schedule, step.work, batch.fed, {}, shape_of(decoder, options, threads));
  // A counting pass has the first position alone.
  std::fill(plan.positions.begin(), plan.positions.end(), 0);
  Arena elsewhere = Arena::counting(model.pool().device());
  const KeyValuePages pages =
      allocate_pages(elsewhere, decoder, batch.most_bundles, options.page_tokens, options.kv_dtype);
  // All rows may read one adapter, and room is made for the largest rank of all.
  std::vector<RowGroup> groups = {{0, rows}};
  for (BoundAdapter* adapter : adapters) groups.push_back({rows, rows, adapter});
  const TokenBatch tokens{upload(ctx, plan.ids), upload(ctx, plan.positions), {}, {}, groups};
  const Pass pass{ctx, tokens, {&model.pool()}};
  PagedAttention attention(ctx, plan, pages);
  const auto forward = [&](BoundAdapter* adapter) {
    groups.front().adapter = adapter;
    return decoder.forward(pass, attention);
  };
  for (BoundAdapter* adapter : adapters) {
    const auto scope = ctx.scratch.scope();
    forward(adapter);
  }
  const TensorView hidden = forward(nullptr);
  {
    const auto scope = ctx.scratch.scope();
    const TensorView nll = ctx.scratch.allocate({rows}, decoder.activations());
    const TensorView best = ctx.scratch.allocate({rows}, DType::i32);
    std::vector<int32_t> numbers(static_cast<size_t>(rows));
    std::iota(numbers.begin(), numbers.end(), 0);
    decoder.head(
        pass, hidden,
        {.rows = upload(ctx, numbers), .labels = upload(ctx, plan.ids), .nll = nll, .best = best, .dhidden = {}});
  }
  const int64_t chosen = std::min(rows, kLogitRows);
  const TensorView picked = ctx.scratch.allocate({chosen, hidden.cols()}, hidden.dtype);
  normalise_rows(ctx, logits_of(pass, decoder, picked));
  return counting.peak_bytes();
}

}  // namespace

EngineMemory plan_engine_memory(Model& model, const BatchPlan& plan, const EngineOptions& options, int threads,
                                int64_t memory_bytes, const std::map<std::string, BoundAdapter*>& adapters) {
  EngineMemory memory;
  memory.bundle_bytes = bundle_bytes(model.decoder(), options.page_tokens, options.kv_dtype);
  const int64_t per_bundle = limits_of(model.decoder(), options, 0, 1).pages_per_bundle;
  const int64_t allowed =
      std::max(plan.most_bundles, std::min(memory_bytes / memory.bundle_bytes, INT32_MAX / per_bundle));
  // Prompts are admitted up to the high water: with no more pages than are used at once, the last ones would wait.
  const auto above = [&](int64_t bundles) {
    return std::min(allowed, static_cast<int64_t>(std::ceil(static_cast<double>(bundles) / options.high_water)));
  };
  const ScheduleLimits limits = limits_of(model.decoder(), options, above(plan.all_bundles), plan.widest);
  memory.peak_bundles = play(plan, limits).peak_bundles;
  memory.bundles = above(memory.peak_bundles);
  // Continuations that end early change the schedule: a step can have more rows than any that was played.
  int64_t rows = plan.tree.tokens();
  for (const Demand& demand : plan.demands) rows += demand.tails() * demand.new_tokens;
  memory.pass_bytes =
      pass_bytes(model, options, std::min(rows, limits.step_tokens), threads, adapters_of(plan, model, adapters));
  return memory;
}

EngineCounts run_engine(const Context& ctx, Model& model, std::span<const Request> requests, const BatchPlan& plan,
                        const EngineOptions& options, int64_t bundles,
                        const std::map<std::string, BoundAdapter*>& adapters, const Tokenizer* tokenizer,
                        const EngineHooks& hooks) {
  // Sampling reads f32.
  TS_CHECK(model.decoder().activations() == DType::f32, "generation computes in f32, not {}",
           name_of(model.decoder().activations()));
  TS_CHECK(plan.widest <= kLogitRows, "a search of {} beams, and rows of {} are formed at once", plan.widest,
           kLogitRows);
  require_exact_rounding(ctx);
  const auto scope = ctx.scratch.scope();
  return Engine(ctx, model, requests, plan, options, bundles, adapters, tokenizer, hooks).run();
}

}  // namespace tessera
