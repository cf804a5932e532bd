#include "score/evaluate.h"

#include <gtest/gtest.h>

#include "comm/data_groups.h"
#include "support/thread_ranks.h"
#include "support/tiny_model.h"
#include "support/token_data.h"

namespace tessera::test {
namespace {

/// Of every rank: what an evaluation by ranks in groups finds.
std::vector<std::vector<double>> sums_of(int ranks, int ranks_a_group, const std::filesystem::path& folder) {
  std::vector<std::vector<double>> found(static_cast<size_t>(ranks));
  const auto settings = tiny_settings(folder);
  on_thread_ranks(ranks, [&](Communicator& world) {
    Model model(settings);
    const OwnContext own;
    model.assemble(own.ctx);
    const PackedDataset data(token_data(22, 12), 12, 1);
    const LossSums sums = evaluate(own.ctx, model, data, world, data_share_of(world, ranks_a_group), 2);
    const auto values = sums.values();
    found[static_cast<size_t>(world.rank())].assign(values.begin(), values.end());
  });
  return found;
}

TEST(Evaluate, RanksOfOneGroupScoreTheSameRowsAndTheirSumsCountOnce) {
  const TemporaryFolder folder;
  const auto two = sums_of(2, 1, folder.path()), in_pairs = sums_of(4, 2, folder.path()),
             together = sums_of(3, 3, folder.path()), alone = sums_of(1, 1, folder.path());
  EXPECT_GT(two[0][1], 0);
  EXPECT_EQ(two[0], two[1]);
  for (const auto& sums : in_pairs) EXPECT_EQ(sums, two[0]);  // to the bit: the leaders' ranks keep their order
  for (const auto& sums : together) EXPECT_EQ(sums, alone[0]);
}

}  // namespace
}  // namespace tessera::test
