// Logits of passes over pages against those of whole documents, for models of every shape.

#include "infer/paged_context.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "infer/batches.h"

namespace tessera {
namespace {

using namespace test;

constexpr int64_t kMaxPosition = 32;

std::vector<std::vector<int32_t>> sequences_of(const std::string& model) {
  const auto file = SafetensorsReader::open(golden(model) / "golden.safetensors");
  const ConstView ids = file.at("input_ids");
  std::vector<std::vector<int32_t>> all;
  for (int64_t b = 0; b < ids.shape[0]; ++b) all.emplace_back(ids.row<int32_t>(b), ids.row<int32_t>(b) + ids.shape[1]);
  return all;
}

/// max |a − b| <= 1e-5 · max |b| of each row, and the same arg max.
void expect_rows(ConstView a, ConstView b) {
  ASSERT_EQ(a.shape, b.shape);
  for (int64_t t = 0; t < b.rows(); ++t) {
    const auto got = a.slice_rows(t, t + 1).as<float>(), want = b.slice_rows(t, t + 1).as<float>();
    double difference = 0, size = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      difference = std::max(difference, std::abs(double{got[i]} - want[i]));
      size = std::max(size, std::abs(double{want[i]}));
    }
    EXPECT_LE(difference, 1e-5 * size) << "token " << t;
    EXPECT_EQ(std::max_element(got.begin(), got.end()) - got.begin(),
              std::max_element(want.begin(), want.end()) - want.begin())
        << "token " << t;
  }
}

struct Case {
  std::string model, backend;
};

class PagedAttentionOf : public testing::TestWithParam<Case> {};

TEST_P(PagedAttentionOf, PiecesOfAPromptHaveTheLogitsOfTheWhole) {
  const Engine engine(GetParam().backend);
  const auto model = load_model(golden(GetParam().model), kMaxPosition);
  for (const auto& ids : sequences_of(GetParam().model)) {
    const Tensor want = forward_logits(engine.ctx, *model, ids);
    for (const int64_t piece : {1, 5, 13})
      for (const int64_t page_tokens : {1, 4, 16})
        expect_rows(paged_logits(engine.ctx, *model, ids, piece, page_tokens), want);
  }
}

/// The batch of both sequences, and the second behind the first seven tokens of the first.
TEST_P(PagedAttentionOf, APageThatIsTakenAgainKeepsNothingOfWhatItHeld) {
  const auto model = load_model(golden(GetParam().model), kMaxPosition);
  const auto sequences = sequences_of(GetParam().model);
  std::vector<Request> requests;
  for (const auto& ids : sequences) requests.push_back(greedy(ids, 9));
  requests.push_back(greedy(joined({sequences[0].begin(), sequences[0].begin() + 7}, sequences[1]), 9));
  Batch batch;
  batch.options = {.page_tokens = 4, .step_tokens = 8};
  batch.backend = GetParam().backend;
  const Answered roomy = answer(*model, requests, batch);
  batch.bundles = plan_of(*model, requests, batch).most_bundles;
  const Answered tight = answer(*model, requests, batch);
  EXPECT_LT(tight.counts.pages_total, roomy.counts.pages_total);
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_EQ(std::ssize(roomy.results[i].outputs[0].ids), 9);
    EXPECT_EQ(tight.results[i].outputs[0].ids, roomy.results[i].outputs[0].ids) << i;
  }
  if (batch.backend == "cpu") expect_outputs(tight, alone(*model, requests), "few pages");
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* model : {"gqa", "mqa_tied", "mha_odd", "wide_heads", "llama3_rope", "bf16", "f16_tied"})
    for (const char* backend : {"reference", "cpu"}) all.push_back({model, backend});
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, PagedAttentionOf, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.model + "_" + info.param.backend; });

TEST(PagedAttention, AnAdapterGivesTheSameOverPages) {
  const Engine engine;
  const std::vector<int32_t> ids = sequences_of("gqa")[0];
  const Tensor plain = forward_logits(engine.ctx, *load_model(golden("gqa"), kMaxPosition), ids);
  for (const char* method : {"lora", "mos"}) {
    AdapterConfig adapter;
    adapter.method = method;
    const auto model = load_model(golden("gqa"), kMaxPosition, adapter);
    const RandomStream stream(3, 4);
    uint64_t i = 0;
    for (float& value : model->pool().trainable().values.as<float>())
      value = 0.2f * static_cast<float>(stream.normal(i++));
    model->assemble(engine.ctx);
    const std::vector<Request> requests = {greedy(ids, 9), greedy(joined(ids, {4}), 9)};
    expect_outputs(answer(*model, requests), alone(*model, requests), method);
    const Tensor paged = paged_logits(engine.ctx, *model, ids, 5, 4);
    expect_rows(paged, forward_logits(engine.ctx, *model, ids));
    EXPECT_GT(std::abs(paged.view().row<float>(12)[0] - plain.view().row<float>(12)[0]), 1e-2)
        << "the adapter does nothing";
  }
}

TEST(PagedSequence, RefusesMoreTokensThanItsPagesHold) {
  const Engine engine;
  const auto model = load_model(golden("gqa"), kMaxPosition);
  const KeyValuePages pages = allocate_pages(engine.ctx.scratch, model->decoder(), 3, 4, DType::f32);
  EXPECT_EQ(PagedSequence::bundles_of(8, 5, 4), 3);
  PagedSequence fits(model->decoder(), ids_of(8, 1), {.new_tokens = 5, .step_tokens = 8}, pages, 1);
  EXPECT_THROW(PagedSequence(model->decoder(), ids_of(8, 1), {.new_tokens = 6, .step_tokens = 8}, pages, 1),
               InternalError);
  const PoolRead values{&model->pool()};
  fits.pass(engine.ctx, values, nullptr, PagedSequence::Rows::last);
  EXPECT_THROW(fits.pass(engine.ctx, values, nullptr, PagedSequence::Rows::last), InternalError);  // nothing is new
}

}  // namespace
}  // namespace tessera
