// Which instructions are in use, and what is told of machines that lack some.

#include "kernels/cpu_target.h"

#include <gmock/gmock.h>

#include "support/cpu_targets.h"

namespace tessera {
namespace {

TEST(CpuTarget, TellsOfAFusedMultiplyAddThatIsDoneInSoftware) {
  EXPECT_EQ(slow_loops_notice({.target = "scalar", .has_fused_multiply_add = false}),
            "note: this CPU has no instruction for a fused multiply-add, so that the C library does each one in "
            "software: results have the bits of any other machine, and take some hundred times as long");
}

TEST(CpuTarget, TellsNothingWhereTheMachineHasTheInstruction) {
  for (const std::string& name : cpu_target_choices())
    EXPECT_EQ(slow_loops_notice({.target = name, .has_fused_multiply_add = true}), "") << name;
}

TEST(CpuTarget, SeesThatVectorsOfThisMachineMultiplyAndAddAtOnce) {
  const std::vector<std::string> here = test::cpu_targets();
  for (const std::string& name : here) {
    use_cpu_target(name);
    EXPECT_EQ(cpu_speed().target, name);
    // Each of the others multiplies and adds by such an instruction.
    EXPECT_TRUE(cpu_speed().has_fused_multiply_add || here.front() == "scalar") << name;
  }
  use_cpu_target("auto");
}

}  // namespace
}  // namespace tessera
