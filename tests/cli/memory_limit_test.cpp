// Limits of control groups, as files say them.

#include "cli/memory_limit.h"

#include <gtest/gtest.h>

#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

class MemoryLimits : public testing::Test {
 protected:
  void write(const std::string& file, const std::string& text) {
    fs::create_directories((root_ / file).parent_path());
    test::write_file(root_ / file, text);
  }
  void mount_v2(const std::string& group = "/") {
    mounts_ += "30 20 0:26 " + group + " /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
  }
  void mount_v1(const std::string& group = "/") {
    mounts_ += "31 20 0:27 " + group + " /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" + "32 20 0:28 " +
               group + " /sys/fs/cgroup/memory rw shared:9 master:2 - cgroup cgroup rw,memory\n";
  }
  MemoryLimit limit(const std::string& groups) {
    write("proc/self/mountinfo", "20 1 0:1 / / rw - ext4 /dev/sda rw\n" + mounts_);
    write("proc/self/cgroup", groups);
    return node_memory_limit(root_.path());
  }
  test::TemporaryFolder root_;
  std::string mounts_;
};

TEST_F(MemoryLimits, WithoutGroupsAreTheMachines) {
  const MemoryLimit machine = limit("");
  EXPECT_EQ(machine.who, "which has");
  EXPECT_GT(machine.bytes, 1 << 26);
}

TEST_F(MemoryLimits, OfVersion2AreTheLeastUpTheHierarchy) {
  mount_v2();
  write("sys/fs/cgroup/user/memory.max", "50000000\n");
  write("sys/fs/cgroup/user/run/memory.max", "max\n");
  write("sys/fs/cgroup/other/memory.max", "1000\n");
  const MemoryLimit found = limit("0::/user/run\n");
  EXPECT_EQ(found.bytes, 50'000'000);
  EXPECT_EQ(found.who, "and the control group /user allows");
}

TEST_F(MemoryLimits, OfVersion1AreTheMemoryControllers) {
  mount_v1();
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  write("sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", "60000000\n");
  write("sys/fs/cgroup/cpu/slurm/memory.limit_in_bytes", "1000\n");
  const MemoryLimit found = limit("5:cpu,cpuacct:/\n4:memory:/slurm/job_7/step_0\n0::/\n");
  EXPECT_EQ(found.bytes, 60'000'000);
  EXPECT_EQ(found.who, "and the control group /slurm/job_7 allows");
}

TEST_F(MemoryLimits, AreFoundInAContainerThatSeesItsOwnGroupOnly) {
  mount_v1("/docker/1f");  // the mount shows the container's group as its root
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "70000000\n");
  write("sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "65000000\n");
  EXPECT_EQ(limit("4:memory:/docker/1f\n").bytes, 70'000'000);
  EXPECT_EQ(limit("4:memory:/docker/1f/inner\n").bytes, 65'000'000);
  EXPECT_EQ(limit("4:memory:/elsewhere\n").bytes, 70'000'000);
}

TEST_F(MemoryLimits, OfBothVersionsCount) {
  mount_v2();
  mount_v1();
  write("sys/fs/cgroup/a/memory.max", "80000000\n");
  write("sys/fs/cgroup/memory/b/memory.limit_in_bytes", "75000000\n");
  EXPECT_EQ(limit("0::/a\n4:memory:/b\n").bytes, 75'000'000);
  EXPECT_EQ(limit("0::/a\n4:memory:/\n").bytes, 80'000'000);
}

TEST_F(MemoryLimits, ThatSayNothingDoNotCount) {
  mount_v2();
  const int64_t machine = limit("").bytes;
  write("sys/fs/cgroup/memory.max", "max\n");
  EXPECT_EQ(limit("0::/\n").bytes, machine);
  EXPECT_EQ(limit("a line of another kind\n").bytes, machine);
  EXPECT_EQ(node_memory_limit(root_ / "nowhere").bytes, machine);
}

}  // namespace
}  // namespace tessera
