#include "kernels/cpu_target.h"

#include "core/error.h"
#include "kernels/cpu/targets.h"

#include "hwy/highway.h"
#include "hwy/targets.h"

namespace tessera {
namespace {

constexpr std::string_view kAuto = "auto";

struct Target {
  std::string_view name;
  int64_t mask;
};

// Every name is known on every machine, so that a recipe can be read on another one.
constexpr Target kTargets[] = {{"avx3", HWY_AVX3}, {"avx2", HWY_AVX2}, {"neon", HWY_NEON}, {"scalar", HWY_EMU128}};

/// Of those that may be chosen now, what this program holds.
int64_t chosen() { return (hwy::SupportedTargets() | HWY_EMU128) & (HWY_TARGETS); }

/// Those that this program holds and this machine runs.
int64_t available() {
  hwy::SetSupportedTargetsForTest(0);
  return chosen();
}

void choose(int64_t mask) {
  hwy::SetSupportedTargetsForTest(mask);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace

std::vector<std::string> cpu_target_choices() {
  std::vector<std::string> names{std::string(kAuto)};
  for (const Target& target : kTargets) names.emplace_back(target.name);
  return names;
}

void use_cpu_target(std::string_view name) {
  const int64_t there = available();
  if (name == kAuto) return choose(there);
  std::string names;
  for (const Target& target : kTargets) {
    if (!(there & target.mask)) continue;
    if (target.name == name) return choose(target.mask);
    names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", target.name);
  }
  throw UserError("", fmt::format("this machine, or this program, does not have the instructions \"{}\"", name),
                  fmt::format("it has {}; \"{}\" takes the best of them", names, kAuto));
}

std::string_view cpu_target() {
  for (const Target& target : kTargets)
    if (chosen() & target.mask) return target.name;
  return "";
}

CpuSpeed cpu_speed() {
#ifdef __x86_64__
  return {cpu_target(), __builtin_cpu_supports("fma") != 0};
#elif defined(__FP_FAST_FMAF)
  return {cpu_target(), true};
#else
  return {cpu_target(), false};
#endif
}

std::string slow_loops_notice(const CpuSpeed& cpu) {
  if (cpu.target != "scalar" || cpu.has_fused_multiply_add) return "";
  return "note: this CPU has no instruction for a fused multiply-add, so that the C library does each one in software: "
         "results have the bits of any other machine, and take some hundred times as long";
}

}  // namespace tessera
