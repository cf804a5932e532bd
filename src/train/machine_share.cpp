#include "train/machine_share.h"

#include <array>

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
  in_.world.barrier();
  std::array<double, 1> rate{limit_rate(in_.ctx, kSeconds)};
  in_.world.all_reduce_sum(std::span<double>(rate));
  limit_ = rate[0];
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
