// Launcher detection and the plugin's absence. These run without a launcher: they pretend one.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <thread>

#include "comm/communicator.h"
#include "comm/mpi/plugin.h"
#include "comm/slurm.h"
#include "core/error.h"
#include "support/paths.h"
#include "world.h"

namespace tessera::test {
namespace {

const char* const kLauncherVariables[] = {
    "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_SIZE",      "PMI_RANK", "PMIX_RANK", "SLURM_PROCID",
    "SLURM_NTASKS",         "SLURM_STEP_NUM_TASKS", "PMIX_NAMESPACE"};

/// Takes the launcher's variables and the plugin folder away, and puts them back afterwards.
class PretendedLauncher : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : kLauncherVariables) forget(name);
    forget("TESSERA_PLUGIN_DIR");
  }
  void TearDown() override {
    for (const char* name : kLauncherVariables) unsetenv(name);
    unsetenv("TESSERA_PLUGIN_DIR");
    for (const auto& [name, value] : saved_) setenv(name.c_str(), value.c_str(), 1);
  }
  void set(const char* name, const char* value) { setenv(name, value, 1); }

 private:
  void forget(const char* name) {
    if (const char* value = std::getenv(name)) saved_.emplace_back(name, value);
    unsetenv(name);
  }
  std::vector<std::pair<std::string, std::string>> saved_;
};

TEST_F(PretendedLauncher, WithoutOneTheWorldIsSelf) {
  EXPECT_FALSE(launched_by_mpi());
  EXPECT_EQ(launched_rank(), 0);
  EXPECT_EQ(world_communicator()->size(), 1);
}

TEST_F(PretendedLauncher, OpenMpiIsSeenEvenWithOneRank) {
  set("OMPI_COMM_WORLD_SIZE", "1");
  set("OMPI_COMM_WORLD_RANK", "0");
  EXPECT_TRUE(launched_by_mpi());
}

TEST_F(PretendedLauncher, PmiAndPmixAreSeen) {
  set("PMI_SIZE", "4");
  EXPECT_FALSE(launched_by_mpi());
  set("PMI_RANK", "3");
  EXPECT_TRUE(launched_by_mpi());
  EXPECT_EQ(launched_rank(), 3);
  unsetenv("PMI_SIZE");
  EXPECT_FALSE(launched_by_mpi());
  set("PMIX_RANK", "2");
  EXPECT_TRUE(launched_by_mpi());
  EXPECT_EQ(launched_rank(), 2);
}

TEST_F(PretendedLauncher, ASlurmBatchScriptIsNotARankButAStepsTaskIs) {
  set("SLURM_PROCID", "0");
  set("SLURM_NTASKS", "4");
  EXPECT_FALSE(launched_by_mpi());
  set("SLURM_STEP_NUM_TASKS", "4");
  set("SLURM_PROCID", "1");
  EXPECT_TRUE(launched_by_mpi());
  EXPECT_EQ(launched_rank(), 1);
}

TEST_F(PretendedLauncher, SrunWithoutPmixIsRefusedBeforeMpiStarts) {
  set("SLURM_PROCID", "1");
  set("SLURM_STEP_NUM_TASKS", "2");
  EXPECT_TRUE(started_by_srun_without_pmix());
  try {
    world_communicator();
    FAIL() << "MPI was started";
  } catch (const UserError& error) {
    EXPECT_THAT(error.message(), ::testing::HasSubstr("srun started 2 tasks and gave them no PMIx"));
    EXPECT_THAT(error.hint(), ::testing::HasSubstr("`srun --mpi=pmix`"));
  }
  set("PMIX_RANK", "1");
  EXPECT_FALSE(started_by_srun_without_pmix());
  unsetenv("PMIX_RANK");
  set("OMPI_COMM_WORLD_SIZE", "2");  // mpirun inside a job of Slurm
  EXPECT_FALSE(started_by_srun_without_pmix());
  unsetenv("OMPI_COMM_WORLD_SIZE");
  set("SLURM_STEP_NUM_TASKS", "1");  // one task needs no other
  EXPECT_FALSE(started_by_srun_without_pmix());
  EXPECT_EQ(world_communicator()->size(), 1);
}

TEST_F(PretendedLauncher, AMissingPluginIsNamedWithTheFoldersSearched) {
  const TemporaryFolder folder;
  set("OMPI_COMM_WORLD_SIZE", "2");
  set("TESSERA_PLUGIN_DIR", folder.path().c_str());
  try {
    world_communicator();
    FAIL() << "a plugin was found";
  } catch (const UserError& error) {
    EXPECT_EQ(error.message(),
              "mpirun (Open MPI) started this program, but its MPI part libtessera_mpi.so is not there");
    EXPECT_THAT(error.hint(), ::testing::HasSubstr("looked in:\n  " + folder.path().string() + "\n"));
  }
}

TEST_F(PretendedLauncher, APluginThatIsNoLibraryIsRefused) {
  const TemporaryFolder folder;
  write_file(folder / kMpiPluginFile, "not a library");
  set("OMPI_COMM_WORLD_SIZE", "2");
  set("TESSERA_PLUGIN_DIR", folder.path().c_str());
  EXPECT_THROW(world_communicator(), UserError);
}

// Each of the following ends the whole job, so CTest starts it under mpirun by itself and looks at mpirun's exit code.

void wait_for_a_sum() {
  std::vector<float> values(1 << 20);
  while (true) world().all_reduce_sum(std::span<float>(values));
}

TEST(DISABLED_RankLoss, ARankKilledInASumEndsTheJob) {
  world().barrier();
  std::thread killer;
  if (world().rank() == 1) killer = std::thread([] { std::raise(SIGKILL); });
  wait_for_a_sum();
}

TEST(DISABLED_RankLoss, ARankThatLeavesEarlyEndsTheJob) {
  world().barrier();
  if (world().rank() == 1) std::_Exit(0);
  wait_for_a_sum();
}

TEST(DISABLED_RankLoss, AnExceptionOnOneRankDoesNotWaitForTheOthers) {
  try {
    const auto own_world = world_communicator();
    if (own_world->rank() == 1) throw UserError("", "this rank alone fails");
    std::vector<float> values(1 << 20);
    while (true) own_world->all_reduce_sum(std::span<float>(values));
  } catch (const UserError&) {
    std::_Exit(2);  // as a main does that has no communicator left
  }
}

TEST(DISABLED_RankLoss, AbortEndsTheJobWithItsExitCode) {
  world().barrier();
  if (world().rank() == 1) world().abort(42);
  wait_for_a_sum();
}

}  // namespace
}  // namespace tessera::test
