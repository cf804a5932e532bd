// What crosses between host and device while text is generated: the list in docs/devices.md, to the byte.

#include <gtest/gtest.h>

#include "core/device/memory.h"
#include "infer/generate.h"
#include "kernels/compute.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

TEST(Crossing, APassSendsItsTokensAndBringsBackTheWantedLogits) {
  const test::TemporaryFolder folder;
  Model::Settings settings = test::tiny_settings(folder.path());
  settings.device = device_of("far");
  Model model(settings);
  const Compute compute({.device = settings.device}, 16 << 20);
  GenerateOptions options;
  options.max_new_tokens = 4;
  options.batch = 2;
  const Transfers before = transfers();
  const auto generated = generate(compute, model, {{1, 2, 3}, {4, 5}}, options);
  const Transfers after = transfers();
  ASSERT_EQ(generated[0].ids.size(), 4u);
  // The prompts, then three passes of a token of each sequence: the last new token is never fed.
  const int64_t passes = 4, tokens = 5 + 3 * 2, sequences = 2;
  EXPECT_EQ(after.uploads - before.uploads, 4 * passes);
  EXPECT_EQ(after.uploaded_bytes - before.uploaded_bytes, tokens * (4 + 4) + passes * sequences * (32 + 4));
  EXPECT_EQ(after.downloads - before.downloads, passes);
  EXPECT_EQ(after.downloaded_bytes - before.downloaded_bytes, passes * sequences * 23 * 4);
}

}  // namespace
}  // namespace tessera
