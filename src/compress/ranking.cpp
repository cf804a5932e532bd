#include "compress/ranking.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <tuple>

#include "core/decimal.h"
#include "core/error.h"
#include "core/random.h"

namespace tessera {
namespace {

constexpr uint64_t kRandomKey = 0x464F4C44;  // "FOLD"

/// Units of the blocks that may be removed, ascending.
/// @param halves  units a block: 1, or 2 when they are halves
std::vector<int64_t> candidates(int64_t layers, int64_t halves, ProtectedBlocks kept) {
  std::vector<int64_t> units(static_cast<size_t>(std::max<int64_t>(0, layers - kept.head - kept.tail) * halves));
  std::iota(units.begin(), units.end(), kept.head * halves);
  return units;
}

void require_blocks_left(int64_t removed, int64_t layers, ProtectedBlocks kept, const KeyPlaces& where,
                         const std::string& key) {
  const int64_t left = layers - removed, ends = kept.head + kept.tail;
  if (removed == 0 || left > ends) return;
  throw UserError(
      where.of({key.c_str(), "protect_head", "protect_tail"}),
      fmt::format("fold: removing {} of {} blocks leaves {}; {} are protected", removed, layers, left, ends),
      fmt::format("lower fold.{}, fold.protect_head or fold.protect_tail", key));
}

}  // namespace

int64_t blocks_to_remove(double rho, int64_t layers, ProtectedBlocks kept, const KeyPlaces& where,
                         const std::string& key) {
  const int64_t removed = share_of(rho, layers, Rounding::nearest);
  require_blocks_left(removed, layers, kept, where, key);
  return removed;
}

std::vector<int64_t> order_by_influence(std::span<const double> bi, ProtectedBlocks kept) {
  auto order = candidates(static_cast<int64_t>(bi.size()), 1, kept);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return bi[a] < bi[b]; });
  return order;
}

std::vector<int64_t> random_order(int64_t layers, int64_t count, ProtectedBlocks kept, uint64_t seed) {
  const auto blocks = candidates(layers, 1, kept);
  std::vector<int64_t> order;
  for (const int32_t drawn : draw_distinct(hash_key({seed, kRandomKey}), static_cast<int64_t>(blocks.size()), count))
    order.push_back(blocks[static_cast<size_t>(drawn)]);
  return order;
}

int64_t most_similar_run(std::span<const double> similarity, int64_t layers, int64_t m, ProtectedBlocks kept) {
  const int64_t states = layers + 1, last = layers - kept.tail - m;
  TS_CHECK(static_cast<int64_t>(similarity.size()) == states * states, "{} cosines of {} states", similarity.size(),
           states);
  TS_CHECK(m >= 1 && kept.head <= last, "no run of {} among {} blocks", m, layers);
  const auto cosine = [&](int64_t s) { return similarity[static_cast<size_t>(s * states + s + m)]; };
  int64_t best = kept.head;
  for (int64_t s = best + 1; s <= last; ++s)
    if (cosine(s) > cosine(best)) best = s;
  return best;
}

std::vector<int64_t> order_by_gates(const GateOutcome& found, ProtectedBlocks kept) {
  const size_t units = found.gate.size(), layers = found.bi.size();
  TS_CHECK(found.theta.size() == units && (units == layers || units == 2 * layers), "{} gates, {} thetas, {} blocks",
           units, found.theta.size(), layers);
  const auto halves = static_cast<int64_t>(units / layers);
  auto order = candidates(static_cast<int64_t>(layers), halves, kept);
  const auto key = [&](int64_t u) { return std::tuple(found.gate[u], found.theta[u], found.bi[u / halves]); };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return key(a) < key(b); });
  return order;
}

std::vector<int64_t> order_by_falls(std::vector<int64_t> order, int64_t trained, std::span<const int64_t> falls) {
  TS_CHECK(0 <= trained && trained <= static_cast<int64_t>(order.size()), "{} of {} units", trained, order.size());
  std::map<int64_t, size_t> last_fall;
  for (size_t i = 0; i < falls.size(); ++i) last_fall[falls[i]] = i;
  const auto step = [&](int64_t unit) {
    const auto found = last_fall.find(unit);
    return found == last_fall.end() ? std::numeric_limits<size_t>::max() : found->second;
  };
  std::stable_sort(order.begin(), order.begin() + trained, [&](int64_t a, int64_t b) { return step(a) < step(b); });
  return order;
}

Removal remove_blocks(std::span<const int64_t> order, int64_t count) {
  TS_CHECK(0 <= count && count <= static_cast<int64_t>(order.size()), "{} of {} blocks", count, order.size());
  Removal removal{.blocks = {order.begin(), order.begin() + count}, .halves = {}};
  std::sort(removal.blocks.begin(), removal.blocks.end());
  return removal;
}

Removal remove_halves(std::span<const int64_t> order, double rho, std::span<const int64_t> parameters,
                      ProtectedBlocks kept, const KeyPlaces& where) {
  const int64_t all = std::accumulate(parameters.begin(), parameters.end(), int64_t{0});
  const int64_t wanted = ceil_of_share(rho, all);
  int64_t removed = 0;
  size_t count = 0;
  while (removed < wanted && count < order.size()) removed += parameters[static_cast<size_t>(order[count++])];
  if (removed < wanted)
    throw UserError(where.of({"remove", "protect_head", "protect_tail"}),
                    fmt::format("fold: removing {} of the blocks' parameters: all that are not protected are {:.4g}",
                                rho, static_cast<double>(removed) / static_cast<double>(all)),
                    "lower fold.remove, fold.protect_head or fold.protect_tail");
  // As blocks are rounded: trained gates shut about rho, and a half that they left open costs more than it saves.
  const int64_t last = count == 0 ? 0 : parameters[static_cast<size_t>(order[count - 1])];
  if (removed - wanted > wanted - (removed - last)) --count;
  std::vector<int64_t> units(order.begin(), order.begin() + static_cast<int64_t>(count));
  std::sort(units.begin(), units.end());
  Removal removal;
  for (size_t i = 0; i < units.size(); ++i) {
    const int64_t block = units[i] / 2;
    if (i + 1 < units.size() && units[i + 1] / 2 == block)
      removal.blocks.push_back(block), ++i;
    else
      removal.halves.push_back({block, units[i] % 2 == 0 ? BlockHalf::attention : BlockHalf::mlp});
  }
  require_blocks_left(static_cast<int64_t>(removal.blocks.size()), static_cast<int64_t>(parameters.size()) / 2, kept,
                      where, "remove");
  return removal;
}

}  // namespace tessera
