#pragma once
// Batches for the engine, and what their answers have to be: each request by itself, everything computed anew for each
// token by the forward pass of training.

#include <functional>
#include <map>
#include <numeric>
#include <vector>

#include "core/device/memory.h"
#include "infer/draws.h"
#include "infer/engine.h"
#include "infer/logprobs.h"
#include "infer/paged_sequence.h"
#include "infer/sampler.h"
#include "model/packed_attention.h"
#include "support/engine.h"

namespace tessera::test {

/// Tokens that look drawn.
inline std::vector<int32_t> ids_of(int64_t count, int64_t first, int64_t vocab = 71) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<int32_t>((first + 7 * static_cast<int64_t>(i * i + i)) % vocab);
  return ids;
}

inline std::vector<int32_t> joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline Request greedy(std::vector<int32_t> prompt, int64_t max_tokens, int64_t logprobs = 2) {
  return {.prompt = std::move(prompt), .max_tokens = max_tokens, .logprobs = logprobs};
}

struct Batch {
  EngineOptions options{};
  int64_t bundles = 0;  // 0: those of the plan
  int threads = 2;
  std::string backend = "cpu";
};

struct Answered {
  std::vector<RequestResult> results;
  EngineCounts counts;
};

inline BatchPlan plan_of(Model& model, const std::vector<Request>& requests, const Batch& batch) {
  return plan_batch(requests, batch.options.prefix, batch.options.page_tokens, model.decoder().max_position(),
                    batch.threads);
}

inline EngineMemory memory_of(Model& model, const BatchPlan& plan, const Batch& batch) {
  EngineMemory memory = plan_engine_memory(model, plan, batch.options, batch.threads, int64_t{1} << 40);
  if (batch.bundles > 0) memory.bundles = batch.bundles;
  return memory;
}

/// All requests through the engine, each of which is told once.
inline Answered answer_in(const Context& ctx, Model& model, const std::vector<Request>& requests, const BatchPlan& plan,
                          const EngineOptions& options, int64_t bundles,
                          const std::map<std::string, BoundAdapter*>& adapters = {}) {
  Answered answered;
  answered.results.resize(requests.size());
  std::vector<int> told(requests.size(), 0);
  const EngineHooks hooks{.finished = [&](int32_t r, RequestResult&& result) {
    ++told[static_cast<size_t>(r)];
    answered.results[static_cast<size_t>(r)] = std::move(result);
  }};
  answered.counts = run_engine(ctx, model, requests, plan, options, bundles, adapters, nullptr, hooks);
  for (const int times : told) TS_CHECK(times == 1, "a request was told {} times", times);
  TS_CHECK(ctx.scratch.used_bytes() == 0, "scratch is held");
  return answered;
}

/// The same in the memory that was planned.
inline Answered answer(Model& model, const std::vector<Request>& requests, const Batch& batch = {}) {
  const BatchPlan plan = plan_of(model, requests, batch);
  const EngineMemory memory = memory_of(model, plan, batch);
  const Engine engine(batch.backend, memory.bytes(), batch.threads);
  return answer_in(engine.ctx, model, requests, plan, batch.options, memory.bundles);
}

/// Logits of every row of one document, by the forward pass of training. @param groups  which adapter rows read
inline Tensor forward_logits(const Context& ctx, Model& model, const std::vector<int32_t>& ids,
                             const std::vector<RowGroup>& groups) {
  const auto scope = ctx.scratch.scope();
  const auto tokens = static_cast<int64_t>(ids.size());
  std::vector<int32_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  const AttentionSegment segment{0, tokens, 0, tokens};
  const TokenBatch rows{ids, positions, {}, {&segment, 1}, groups};
  const Pass pass{ctx, rows, {&model.pool()}};
  PackedAttention attention;
  Tensor logits({tokens, model.config().vocab_size}, DType::f32);
  model.decoder().logits(pass, model.decoder().forward(pass, attention), positions, logits);
  return logits;
}
inline Tensor forward_logits(const Context& ctx, Model& model, const std::vector<int32_t>& ids) {
  return forward_logits(ctx, model, ids, {{0, static_cast<int64_t>(ids.size()), model.bound_adapter()}});
}
/// Two threads of the CPU, with room for a document of 1,200 tokens; made once, since its memory is zeroed.
inline const Engine& roomy_engine() {
  static const Engine engine("cpu", int64_t{256} << 20, 2);
  return engine;
}
inline Tensor forward_logits(Model& model, const std::vector<int32_t>& ids) {
  return forward_logits(roomy_engine().ctx, model, ids);
}

/// Logits of every token of a prompt that pages take piece by piece.
inline Tensor paged_logits(const Context& ctx, Model& model, const std::vector<int32_t>& ids, int64_t piece,
                           int64_t page_tokens) {
  const auto scope = ctx.scratch.scope();
  const int64_t tokens = std::ssize(ids), bundles = PagedSequence::bundles_of(tokens, 1, page_tokens);
  const KeyValuePages pages = allocate_pages(ctx.scratch, model.decoder(), bundles, page_tokens, DType::f32);
  PagedSequence sequence(model.decoder(), ids, {.step_tokens = piece}, pages, ctx.threads);
  Tensor all({tokens, model.config().vocab_size}, DType::f32);
  for (int64_t begin = 0; begin < tokens; begin += piece) {
    const auto pass_scope = ctx.scratch.scope();
    copy(sequence.pass(ctx, {&model.pool()}, model.bound_adapter(), PagedSequence::Rows::all),
         all.view().slice_rows(begin, std::min(begin + piece, tokens)));
  }
  return all;
}

/// nll [tokens - 1] of tokens 1 .. of one document, by the fused head of training.
inline std::vector<float> forward_nll(Model& model, const std::vector<int32_t>& ids) {
  const Context& ctx = roomy_engine().ctx;
  const auto scope = ctx.scratch.scope();
  const auto tokens = static_cast<int64_t>(ids.size());
  std::vector<int32_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int32_t> rows(positions.begin(), positions.end() - 1), labels(ids.begin() + 1, ids.end());
  const AttentionSegment segment{0, tokens, 0, tokens};
  const RowGroup group{0, tokens, model.bound_adapter()};
  const TokenBatch batch{ids, positions, {}, {&segment, 1}, {&group, 1}};
  const Pass pass{ctx, batch, {&model.pool()}};
  PackedAttention attention;
  std::vector<float> nll(rows.size());
  model.decoder().head(pass, model.decoder().forward(pass, attention),
                       {.rows = rows, .labels = labels, .nll = TensorView(nll), .best = {}, .dhidden = {}});
  return nll;
}

/// One sample of a request, everything computed anew for each token; without texts.
/// @param forward  logits of every row of a document
inline Output answer_by(const std::function<Tensor(const std::vector<int32_t>&)>& forward, Model& model,
                        const Request& request, int64_t sample = 0) {
  const Context& ctx = roomy_engine().ctx;
  TokenChooser chooser(model.config().vocab_size);
  Output output;
  std::vector<int32_t> ids = request.prompt;
  while (true) {
    const Tensor logits = forward(ids);
    const TensorView last = logits.view().slice_rows(logits.shape()[0] - 1, logits.shape()[0]);
    const auto id = chooser.choose(last.as<float>(), request, request.prompt, output.ids,
                                   draw_uniform(request.seed, sample, std::ssize(output.ids)));
    const RowNormaliser normaliser = normalise_rows(ctx, last)[0];
    output.cumulative_logprob += normaliser.logprob(last.as<float>()[static_cast<size_t>(*id)]);
    output.finish = Finish::stop;
    if (std::find(request.stop_ids.begin(), request.stop_ids.end(), *id) != request.stop_ids.end()) return output;
    output.logprobs.push_back(logprobs_of(last.as<float>(), normaliser, *id, std::max<int64_t>(0, request.logprobs)));
    output.ids.push_back(*id);
    ids.push_back(*id);
    output.finish = Finish::max_new_tokens;
    if (std::ssize(output.ids) == request.max_tokens) return output;
    output.finish = Finish::max_position;
    if (std::ssize(ids) > model.decoder().max_position()) return output;
  }
}
inline Output answer_alone(Model& model, const Request& request, int64_t sample = 0) {
  return answer_by([&](const std::vector<int32_t>& ids) { return forward_logits(model, ids); }, model, request, sample);
}

/// The same tokens, and logarithms of probabilities with the same bits.
inline void expect_same(const Output& got, const Output& want, const std::string& where) {
  EXPECT_EQ(got.ids, want.ids) << where;
  EXPECT_EQ(got.finish, want.finish) << where;
  EXPECT_EQ(got.cumulative_logprob, want.cumulative_logprob) << where;
  ASSERT_EQ(got.logprobs.size(), want.logprobs.size()) << where;
  for (size_t t = 0; t < got.logprobs.size(); ++t) {
    const TokenLogprobs &a = got.logprobs[t], &b = want.logprobs[t];
    EXPECT_EQ(a.token.id, b.token.id) << where << ", token " << t;
    EXPECT_EQ(a.token.logprob, b.token.logprob) << where << ", token " << t;
    ASSERT_EQ(a.top.size(), b.top.size());
    for (size_t k = 0; k < a.top.size(); ++k) {
      EXPECT_EQ(a.top[k].id, b.top[k].id) << where << ", token " << t;
      EXPECT_EQ(a.top[k].logprob, b.top[k].logprob) << where << ", token " << t;
    }
  }
}

/// Each request, of one output, by itself.
inline std::vector<Output> alone(Model& model, const std::vector<Request>& requests) {
  std::vector<Output> outputs;
  for (const Request& request : requests) outputs.push_back(answer_alone(model, request));
  return outputs;
}

inline void expect_outputs(const Answered& got, const std::vector<Output>& want, const std::string& where) {
  ASSERT_EQ(got.results.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(got.results[i].outputs.size(), 1) << where << " " << i;
    ASSERT_FALSE(got.results[i].error) << got.results[i].error->message;
    expect_same(got.results[i].outputs[0], want[i], where + ", request " + std::to_string(i));
  }
}

}  // namespace tessera::test
