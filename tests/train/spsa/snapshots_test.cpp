#include "train/spsa/snapshots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/paths.h"

namespace tessera {
namespace {

TEST(Snapshots, AreComparedAsNumbersAndCopiesAreTheUsers) {
  const test::TemporaryFolder folder;
  for (const char* name : {"round-00000020.safetensors", "round-99999999.safetensors", "round-100000000.safetensors",
                           "round-4294967295.safetensors", "round-4294967296.safetensors", "round-20.safetensors",
                           "round-00000020 copy.safetensors", "round-best.safetensors", "best.safetensors"})
    test::write_file(folder / name, "x");
  EXPECT_THAT(snapshot_rounds(folder.path()), testing::ElementsAre(4294967295u, 100'000'000u, 99'999'999u, 20u));
}

}  // namespace
}  // namespace tessera
