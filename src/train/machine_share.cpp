#include "train/machine_share.h"

#include <array>

#include "core/out_of_memory.h"
#include "kernels/product_rate.h"
#include "train/estimator.h"
#include "train/row_work.h"

namespace tessera {
namespace {

constexpr double kSeconds = 0.5;
constexpr double kMostOfRun = 0.02;

/// Clocks differ, and all ranks have to go the same way.
bool as_rank_0(Communicator& world, bool choice) {
  if (world.size() == 1) return choice;
  std::vector<std::byte> bytes{std::byte{choice}};
  world.broadcast(bytes, 0);
  return bytes.at(0) != std::byte{0};
}

/// FLOP a second of all ranks at the same time; 0 where one of them has no memory for it: a figure is not worth a run.
double limit_of_all(const Context& ctx, Communicator& world) {
  world.barrier();
  std::array<double, 2> sums{0, 0};  // the rates, and how many there are
  try {
    sums = {limit_rate(ctx, kSeconds), 1};
  } catch (const OutOfMemory&) {
  }
  world.all_reduce_sum(std::span<double>(sums));
  return sums[1] < static_cast<double>(world.size()) ? 0 : sums[0];
}

}  // namespace

std::string MachineShare::look(double step_seconds, int64_t steps_left) {
  if (has_looked_) return "";
  has_looked_ = true;
  const Estimator::Passes passes = estimator_of(in_.config).passes();
  if (in_.loss || passes.forward == 0) return "";
  const bool pays = kSeconds <= kMostOfRun * step_seconds * static_cast<double>(steps_left);
  if (!as_rank_0(in_.world, pays)) return "";
  const RowWork work = row_work(in_.model, in_.data);
  row_flop_ = passes.forward * work.forward + passes.backward * work.backward;
  limit_ = limit_of_all(in_.ctx, in_.world);
  if (limit_ == 0) return "";
  return fmt::format(
      "limit: {:.3g} GFLOP/s of matrix products on {} ranks x {} threads, measured for half a second behind the first "
      "step; shares of it are of what the training needs",
      limit_ * 1e-9, in_.world.size(), in_.ctx.threads);
}

std::optional<double> MachineShare::of(int64_t rows, double seconds) const {
  if (limit_ == 0) return std::nullopt;
  return row_flop_ * static_cast<double>(rows) / seconds / limit_;
}

}  // namespace tessera
