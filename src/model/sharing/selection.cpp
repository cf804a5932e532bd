#include "model/sharing/selection.h"

#include <cmath>
#include <set>

#include "core/decimal.h"
#include "core/error.h"
#include "model/sharing/binding.h"
#include "model/sharing/regex_of.h"

namespace tessera {
namespace {

/// Whether an entry of sharing.shared names the spec.
bool is_named(const WeightSpec& spec, const std::string& entry, const Regex* pattern) {
  if (entry == "linears") return spec.role == Role::linear;
  if (entry == "embedding") return spec.role == Role::embedding;
  if (entry == "head") return spec.role == Role::head;
  return pattern->is_found_in(spec.name);
}

std::optional<Regex> pattern_of(const std::string& entry, const std::string& place) {
  if (entry == "linears" || entry == "embedding" || entry == "head") return std::nullopt;
  return regex_of(entry, place);
}

}  // namespace

std::string grouped(int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

double deviation_of(const Init& init) {
  if (init.kind == Init::Kind::normal) return init.scale;
  if (init.kind == Init::Kind::uniform) return init.scale / std::sqrt(3.0);
  return 0;
}

std::vector<int> shared_specs(std::span<const WeightSpec> specs, const SharingConfig& config, const KeyPlaces& where) {
  std::set<std::string> chosen;
  const std::string& place = where.of("shared");
  const std::string key_place = place.ends_with("sharing.shared") ? place : place + ": sharing.shared";
  for (const std::string& entry : config.shared) {
    const auto pattern = pattern_of(entry, key_place);
    bool found = false;
    for (const WeightSpec& spec : specs) {
      const bool named = with_place(key_place, [&] { return is_named(spec, entry, pattern ? &*pattern : nullptr); });
      if (spec.shape.rank != 2 || !named) continue;
      found = true;
      if (spec.shape.count() >= config.min_numel) chosen.insert(spec.storage);
    }
    if (!found)
      throw UserError(
          place, fmt::format("{}: sharing.shared \"{}\" names no matrix of this model", config.method, entry),
          "name \"linears\", \"embedding\", \"head\", or a regular expression of tensors' names, such as \"mlp\"");
  }
  std::vector<int> numbers;
  std::set<std::string> seen;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (!chosen.count(specs[i].storage) || !seen.insert(specs[i].storage).second) continue;
    if (deviation_of(specs[i].init) == 0)
      throw UserError(place,
                      fmt::format("{}: '{}' is initialised to {}; exclude it", config.method, specs[i].name,
                                  specs[i].init.kind == Init::Kind::ones ? "ones" : "zeros"),
                      "a shared weight has the scale of its first values: leave the tensor out of sharing.shared");
    numbers.push_back(static_cast<int>(i));
  }
  if (numbers.empty())
    throw UserError(where.of({"min_numel", "shared"}), config.method + ": no tensor is shared",
                    fmt::format("lower sharing.min_numel ({}), or name more in sharing.shared", config.min_numel));
  return numbers;
}

void require_trained_alike(std::span<const WeightSpec> shared, const BaseOptions& options, const SharingConfig& config,
                           const KeyPlaces& where) {
  for (const WeightSpec& spec : shared)
    if (options.trainable && !is_trained(spec, options))
      throw UserError(where.of({"shared", "method"}),
                      fmt::format("{}: '{}' is frozen and shares its cells: a shared cell cannot be half frozen",
                                  config.method, spec.storage),
                      "leave it out of sharing.shared, or out of train.freeze");
}

namespace {

int64_t wanted_cells(const SharingConfig& config, int64_t weights) {
  if (config.rules != Rules::first) return quotient_of(weights, config.compression, Rounding::down);
  return static_cast<int64_t>(std::min(std::floor(static_cast<double>(weights) / config.compression), 0x1p62));
}

}  // namespace

int64_t cells_of(const SharingConfig& config, int64_t weights, const KeyPlaces& where) {
  const int64_t cells = config.pool ? *config.pool : wanted_cells(config, weights);
  if (cells > weights)
    throw UserError(where.of({"pool", "compression"}),
                    fmt::format("{}: pool {} is larger than the {} shared weights: nothing to share (use 1x)",
                                config.method, grouped(cells), grouped(weights)),
                    "set sharing.compression to 1 or more, or sharing.pool to no more than the weights");
  if (cells < 1)
    throw UserError(where.of("compression"),
                    fmt::format("{}: {} shared weights at {:.6g}x leave no cell", config.method, grouped(weights),
                                config.compression),
                    fmt::format("sharing.compression may be 1 .. {}", grouped(weights)));
  return cells;
}

}  // namespace tessera
