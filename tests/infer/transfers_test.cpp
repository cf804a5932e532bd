// What crosses between host and device while text is generated: the list in docs/devices.md, to the byte.

#include <gtest/gtest.h>

#include "core/device/memory.h"
#include "infer/batches.h"
#include "kernels/compute.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

using namespace test;

TEST(Crossing, APassSendsItsTokensAndItsPlanAndBringsBackTheWantedLogits) {
  const TemporaryFolder folder;
  Model::Settings settings = tiny_settings(folder.path());
  settings.device = device_of("far");
  Model model(settings);
  const std::vector<Request> requests = {greedy({1, 2, 3}, 4, -1), greedy({4, 5}, 4, -1)};
  Batch batch;
  batch.threads = 1;
  const BatchPlan plan = plan_of(model, requests, batch);
  const EngineMemory memory = memory_of(model, plan, batch);
  const Compute compute({.device = settings.device}, memory.bytes());
  const Transfers before = transfers();
  const Answered got = answer_in(compute, model, requests, plan, batch.options, memory.bundles);
  const Transfers after = transfers();
  ASSERT_EQ(got.results[0].outputs[0].ids.size(), 4u);
  // The prompts, then three passes of a token of each sequence: the last new token is never fed.
  const int64_t passes = 4, tokens = 5 + 3 * 2, sequences = 2;
  // Of each token: id and position of the pass; page, entry and position of its keys.
  const int64_t token_bytes = 5 * 4;
  // The first pass has a run and a visit a prompt. Each later one has two runs of a prompt, one for the prompt's own
  // rows and one in front of the continuation's run, and one visit, of the continuation. A prompt's pages stand in a
  // table, and a continuation's in another. One tile takes all rows.
  const int64_t runs = sequences * (1 + 3 * 3), visits = sequences * passes, tables = sequences * (1 + 3 * 2);
  const int64_t plan_bytes = runs * (32 + 4) + visits * (24 + 4) + tables * 4 + passes * 16;
  // 2 arrays of tokens, 9 of the plan, and the wanted rows.
  EXPECT_EQ(after.uploads - before.uploads, 12 * passes);
  EXPECT_EQ(after.uploaded_bytes - before.uploaded_bytes, tokens * token_bytes + plan_bytes + passes * sequences * 4);
  // Logits, and a number that counts the bytes of keys and values that were read.
  EXPECT_EQ(after.downloads - before.downloads, 2 * passes);
  EXPECT_EQ(after.downloaded_bytes - before.downloaded_bytes, passes * (sequences * 23 * 4 + 8));
}

}  // namespace
}  // namespace tessera
