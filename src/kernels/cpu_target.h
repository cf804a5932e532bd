#pragma once
// Which instructions the cpu kernels use. All give the same bits: the choice is about speed, and for tests.

#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// What a recipe may say: "auto" (the best of this machine), then the names, best first: "avx3" (AVX-512), "avx2",
/// "neon", "scalar" (plain loops; multiplies and adds in one rounding by the C library where the CPU has no such
/// instruction, which is some hundred times slower: slow_loops_notice).
std::vector<std::string> cpu_target_choices();

/// The cpu kernels of this process use that one from now on. Not while one of them is running.
/// @throws UserError, without a place, when this program or machine does not have it
void use_cpu_target(std::string_view name);

/// The name of the one in use.
std::string_view cpu_target();

/// What the speed of the cpu kernels hangs on.
struct CpuSpeed {
  std::string_view target;      // as cpu_target()
  bool has_fused_multiply_add;  // of the machine, whether or not the target uses it
};
CpuSpeed cpu_speed();

/// What to tell a user whose machine computes each fused multiply-add of the plain loops in software; empty where it
/// need not.
std::string slow_loops_notice(const CpuSpeed& = cpu_speed());

}  // namespace tessera
