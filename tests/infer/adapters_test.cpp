// Many adapters in one batch: each request has the bits that it has alone, and shares what is computed without one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "infer/batches.h"
#include "model/adapter_io.h"
#include "model/export.h"
#include "model/saved_adapter.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;

/// Adapters on the disk and at work on one model, and models that have one of them each for their own.
class Adapters {
 public:
  explicit Adapters(int64_t max_position = 320) : max_position_(max_position) {
    model_ = load_model(golden("gqa"), max_position);
  }

  void add(const std::string& name, const std::string& method, int64_t rank, uint32_t seed) {
    AdapterConfig config;
    config.method = method == "mos" ? "mos" : "lora";
    config.rank = rank;
    config.shards = 2;
    auto own = load_model(golden("gqa"), max_position_, config);
    fill_all_normal(own->pool(), seed, 0.25);
    const Context& ctx = roomy_engine().ctx;
    own->assemble(ctx);
    const auto folder = folder_ / fmt::format("{}", own_.size());
    method == "peft" ? export_peft(folder, *own) : save_adapter(folder, *own);
    const auto saved = open_adapter(folder, "");
    batch_.contents[name] = saved->content();
    auto loaded = std::make_unique<LoadedAdapter>(*saved, *model_);
    loaded->bound().assemble(ctx);
    by_name_[name] = &loaded->bound();
    loaded_.push_back(std::move(loaded));
    own_[name] = std::move(own);
  }

  Model& base() { return *model_; }
  Model& own(const std::string& name) { return name == "base" || name.empty() ? *model_ : *own_.at(name); }
  BoundAdapter* bound(const std::string& name) { return name == "base" || name.empty() ? nullptr : by_name_.at(name); }
  BatchAdapters& batch() { return batch_; }

  Answered answer(const std::vector<Request>& requests, const Batch& b = {}) {
    const BatchPlan plan = plan_batch(requests, b.options.prefix, b.options.page_tokens,
                                      model_->decoder().max_position(), b.threads, batch_);
    EngineMemory memory = plan_engine_memory(*model_, plan, b.options, b.threads, int64_t{1} << 40, by_name_);
    if (b.bundles > 0) memory.bundles = b.bundles;
    const test::Engine engine(b.backend, memory.bytes(), b.threads);
    return answer_in(engine.ctx, *model_, requests, plan, b.options, memory.bundles, by_name_);
  }

  /// One request by the forward pass of training: the base up to the offset, the adapter behind it.
  Output alone(const Request& request) {
    const auto forward = [&](const std::vector<int32_t>& ids) {
      const int64_t tokens = std::ssize(ids), from = std::min(tokens, request.activation_offset);
      BoundAdapter* adapter = bound(request.adapter);
      return forward_logits(roomy_engine().ctx, *model_, ids, {{0, from, nullptr}, {from, tokens, adapter}});
    };
    return answer_by(forward, *model_, request);
  }

 private:
  int64_t max_position_;
  TemporaryFolder folder_;
  std::unique_ptr<Model> model_;
  std::map<std::string, std::unique_ptr<Model>> own_;
  std::vector<std::unique_ptr<LoadedAdapter>> loaded_;
  std::map<std::string, BoundAdapter*> by_name_;
  BatchAdapters batch_;
};

Request asked(std::vector<int32_t> prompt, const std::string& adapter, int64_t max_tokens = 6, int64_t offset = 0) {
  Request request = greedy(std::move(prompt), max_tokens);
  request.adapter = adapter;
  request.activation_offset = offset;
  return request;
}

/// Sixteen of all kinds and of different ranks.
void add_sixteen(Adapters& adapters) {
  const char* methods[] = {"lora", "mos", "peft"};
  for (uint32_t i = 0; i < 16; ++i)
    adapters.add(fmt::format("a{}", i), methods[i % 3], i % 3 == 1 ? 3 : 1 + i % 5, 10 + i);
}

TEST(ManyAdapters, HaveTheBitsOfSixteenModelsThatHaveOneEach) {
  Adapters adapters;
  add_sixteen(adapters);
  std::vector<Request> requests;
  std::vector<Output> want;
  const auto header = ids_of(130, 3);
  for (int64_t i = 0; i < 48; ++i) {
    const std::string name = i % 17 == 16 ? "base" : fmt::format("a{}", i % 17);
    requests.push_back(asked(joined(header, ids_of(1 + i % 7, 5 * i)), name));
    Request plain = requests.back();
    plain.adapter.clear();
    want.push_back(answer_alone(adapters.own(name), plain));
  }
  for (const PrefixMode mode : {PrefixMode::tree, PrefixMode::level1_exact, PrefixMode::off})
    for (const int64_t step : {23, 256})
      for (const int64_t together : {int64_t{3}, INT64_MAX}) {
        Batch batch;
        batch.options = {.prefix = mode, .page_tokens = 8, .step_tokens = step, .max_step_adapters = together};
        adapters.batch().most_together = together;
        expect_outputs(adapters.answer(requests, batch), want,
                       fmt::format("mode {}, steps of {}, {} together", static_cast<int>(mode), step, together));
      }
}

TEST(ManyAdapters, SearchByBeamsAsModelsThatHaveOneEach) {
  Adapters adapters;
  adapters.add("law", "lora", 2, 1);
  adapters.add("tax", "mos", 3, 2);
  std::vector<Request> requests;
  for (const char* name : {"law", "base", "tax", "law"}) {
    requests.push_back(asked(joined(ids_of(30, 3), ids_of(2 + std::ssize(requests), 7)), name, 8));
    requests.back().beams.width = requests.size() == 4 ? 1 : 3;
  }
  Batch batch;
  batch.options = {.page_tokens = 8, .step_tokens = 32};
  const Answered together = adapters.answer(requests, batch);
  for (size_t i = 0; i < requests.size(); ++i) {
    Request plain = requests[i];
    plain.adapter.clear();
    const Answered by_itself = test::answer(adapters.own(requests[i].adapter), {plain});
    ASSERT_EQ(together.results[i].outputs.size(), by_itself.results[0].outputs.size());
    expect_same(together.results[i].outputs[0], by_itself.results[0].outputs[0], requests[i].adapter);
  }
}

TEST(ManyAdapters, ShareNothingWhereTheyDifferAndAllWhereTheyAreOne) {
  Adapters adapters;
  adapters.add("law", "lora", 2, 1);
  adapters.add("twin", "lora", 2, 1);
  adapters.add("tax", "lora", 2, 2);
  const auto prompt = ids_of(100, 9);
  const auto computed = [&](const std::string& a, const std::string& b) {
    return adapters.answer({asked(prompt, a), asked(prompt, b)}).counts.schedule.computed;
  };
  EXPECT_EQ(computed("law", "law"), 100);
  EXPECT_EQ(computed("law", "twin"), 100);
  EXPECT_EQ(computed("law", "tax"), 200);
  EXPECT_EQ(computed("law", "base"), 200);
  // One name, and bytes that are another adapter's.
  Adapters others;
  others.add("law", "lora", 2, 2);
  const std::vector<Request> requests = {asked(prompt, "law"), asked(prompt, "base")};
  const Answered here = adapters.answer(requests), there = others.answer(requests);
  expect_same(here.results[1].outputs[0], there.results[1].outputs[0], "base");
  expect_same(here.results[0].outputs[0], adapters.alone(requests[0]), "law");
  expect_same(there.results[0].outputs[0], others.alone(requests[0]), "the other law");
  EXPECT_NE(here.results[0].outputs[0].cumulative_logprob, there.results[0].outputs[0].cumulative_logprob);
}

TEST(ActivationOffset, SharesExactlyWhatTheBaseComputes) {
  Adapters adapters;
  adapters.add("law", "lora", 2, 1);
  adapters.add("tax", "mos", 3, 2);
  const auto header = ids_of(140, 9);
  // Behind the header: within a block of 128, at a page's end, behind all of the prompt, and nowhere.
  std::vector<Request> requests;
  const auto own = [&](int64_t i) { return joined(header, ids_of(4, 13 * i)); };
  requests.push_back(asked(own(1), "law", 5, 140));
  requests.push_back(asked(own(2), "tax", 5, 140));
  requests.push_back(asked(own(3), "law", 5, 128));
  requests.push_back(asked(own(4), "tax", 5, 77));
  requests.push_back(asked(own(1), "law", 5, 144));
  requests.push_back(asked(own(1), "tax", 5, 144));
  requests.push_back(asked(own(1), "base", 5, 30));
  requests.push_back(asked(own(5), "law", 5, 0));
  std::vector<Output> want;
  for (const Request& request : requests) want.push_back(adapters.alone(request));
  // The header once; four tokens each of requests 0 and 1, of the three that the base reads together; what lies behind
  // the offsets of 2 and 3; all of the last one.
  const int64_t computed = 140 + 4 + 4 + 4 + (144 - 128) + (144 - 77) + 144;
  for (const int64_t step : {19, 256})
    for (const int64_t page : {8, 128}) {
      Batch batch;
      batch.options = {.page_tokens = page, .step_tokens = step};
      const Answered got = adapters.answer(requests, batch);
      expect_outputs(got, want, fmt::format("steps of {}, pages of {}", step, page));
      EXPECT_EQ(got.counts.schedule.computed, computed);
    }
  const BatchPlan plan = plan_batch(requests, PrefixMode::tree, 8, 320, 1, adapters.batch());
  EXPECT_THAT(plan.cached, ElementsAre(0, 140, 128, 77, 140, 144, 144, 0));
  // Each of them by itself.
  for (size_t i = 0; i < requests.size(); ++i)
    expect_same(adapters.answer({requests[i]}).results[0].outputs[0], want[i], "alone");
  std::set<double> different;
  for (const Output& output : want) different.insert(output.cumulative_logprob);
  EXPECT_EQ(different.size(), 8);
}

TEST(ActivationOffset, IsKeptWhenPagesRunOutAndPromptsAreScored) {
  Adapters adapters;
  add_sixteen(adapters);
  std::vector<Request> requests;
  std::vector<Output> want;
  for (int64_t i = 0; i < 24; ++i) {
    requests.push_back(
        asked(joined(ids_of(60, 5), ids_of(3 + i % 4, 3 * i)), fmt::format("a{}", i % 16), 20, 7 * (i % 9)));
    want.push_back(adapters.alone(requests.back()));
  }
  Batch batch;
  batch.options = {.page_tokens = 8, .step_tokens = 40};
  batch.bundles = plan_batch(requests, PrefixMode::tree, 8, 320, 1, adapters.batch()).most_bundles + 6;
  const Answered got = adapters.answer(requests, batch);
  expect_outputs(got, want, "few pages");
  EXPECT_GT(got.counts.schedule.preemptions, 0);

  Request scored{.prompt = ids_of(50, 2), .adapter = "a1", .activation_offset = 20, .max_tokens = 0};
  Request whole = scored;
  whole.activation_offset = 0;
  const Answered both = adapters.answer({scored, whole});
  EXPECT_EQ(both.counts.schedule.computed, 49 + 49);
  Request told = scored;
  told.max_tokens = 1, told.prompt_logprobs = 0;
  const RequestResult once = adapters.answer({told}).results[0];
  for (size_t t = 0; t < 49; ++t) {
    EXPECT_EQ(both.results[0].scores->logprobs[t], once.prompt_logprobs[t].token.logprob) << t;
    // The last token in front of the offset predicts the first one behind it.
    if (t >= 20) {
      EXPECT_NE(both.results[0].scores->logprobs[t], both.results[1].scores->logprobs[t]) << t;
    }
  }
}

TEST(BatchPlan, BringsAnAdaptersRequestsTogetherWhereThereAreTooMany) {
  std::vector<Request> requests;
  for (int64_t i = 0; i < 40; ++i) requests.push_back(asked(ids_of(5 + i, i), fmt::format("{}", i % 10), 1 + i % 13));
  const BatchPlan all = plan_batch(requests, PrefixMode::tree, 8, 320, 1);
  const BatchPlan few = plan_batch(requests, PrefixMode::tree, 8, 320, 1, {.most_together = 3});
  const auto changes = [&](const BatchPlan& plan) {
    int64_t count = 0;
    for (size_t i = 1; i < plan.order.size(); ++i)
      count += requests[static_cast<size_t>(plan.order[i])].adapter !=
               requests[static_cast<size_t>(plan.order[i - 1])].adapter;
    return count;
  };
  EXPECT_GT(changes(all), 9);
  EXPECT_EQ(changes(few), 9);
  EXPECT_EQ(few.adapters.size(), 11);

  Schedule schedule(few.tree, few.order, few.demands,
                    {.step_tokens = 64, .sequences = 64, .bundles = few.all_bundles, .page_tokens = 8, .adapters = 3});
  size_t ended = 0, most = 0;
  std::vector<int64_t> lengths(static_cast<size_t>(schedule.sequences()), 0);
  for (ScheduledStep step = schedule.next(); !step.empty(); step = schedule.next()) {
    std::set<int32_t> here;
    std::vector<int32_t> fed = step.starts;
    for (const Work& w : step.work) {
      const int32_t r =
          w.node >= 0 ? few.tree.nodes[static_cast<size_t>(w.node)].request : schedule.request_of(w.sequence);
      here.insert(few.weights[static_cast<size_t>(r)].adapter);
      if (w.sequence >= 0) fed.push_back(w.sequence);
    }
    most = std::max(most, here.size());
    for (const int32_t s : fed) {
      const auto r = static_cast<size_t>(schedule.request_of(s));
      if (++lengths[static_cast<size_t>(s)] < few.demands[r].new_tokens)
        schedule.append(s);
      else
        schedule.finish(s), ++ended;
    }
  }
  EXPECT_EQ(ended, 40);
  EXPECT_EQ(most, 3);
}

TEST(BatchPlan, CallsANameWithTheBasesContentTheBase) {
  const std::vector<Request> requests = {asked(ids_of(9, 1), ""), asked(ids_of(9, 1), "base", 6, 4),
                                         asked(ids_of(9, 1), "law", 6, 9)};
  const BatchPlan plan = plan_batch(requests, PrefixMode::tree, 8, 64, 1, {.contents = {{"", "base"}}});
  EXPECT_EQ(plan.tree.tokens(), 9);
  EXPECT_THAT(plan.adapters, ElementsAre("base", "law"));
  const BatchPlan own = plan_batch(requests, PrefixMode::tree, 8, 64, 1);
  EXPECT_EQ(own.tree.tokens(), 18);
  EXPECT_THAT(own.adapters, ElementsAre("base", "", "law"));
}

}  // namespace
}  // namespace tessera
