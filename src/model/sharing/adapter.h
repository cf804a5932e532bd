#pragma once
// Adapters: low-rank deltas beside frozen weights. One file a method; registry.cpp lists them.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/fields.h"
#include "core/json.h"
#include "core/key_places.h"
#include "model/weights.h"

namespace tessera {

/// [adapter]
struct AdapterConfig {
  std::string method = "none";
  int64_t equivalent_rank = 2;
  std::optional<int64_t> rank, private_rank;
  int64_t shards = 4;
  double alpha = 16, dropout = 0;
  std::vector<std::string> targets = {"all"};
  std::string draw = "random", scale = "standard";
  int64_t index_seed = 0;
  std::filesystem::path load;

  void visit(Fields& v);
  void check(SectionCheck&) const;
};

/// Reserves a slot of an adapter in the pool that it is attached to. Where the adapter is part of a base, the base
/// gives the slot another name and decides whether it is trained.
using ReserveSlot = std::function<SlotId(const std::string& name, SlotOptions)>;

/// A method with its settings, ready to be attached to a model.
class Adapter {
 public:
  virtual ~Adapter() = default;
  /// Reserves the adapter's slots and returns the deltas by weight number. A pure function of config and specs: all
  /// ranks build the same tables without talking.
  /// @param reserve  takes the place of the pool's own `reserve`
  virtual AdapterWeights attach(std::span<const WeightSpec>, ParameterPool&, const ReserveSlot& reserve) = 0;
  /// The same, with the slots as the adapter asks for them.
  AdapterWeights attach(std::span<const WeightSpec> specs, ParameterPool& pool) {
    return attach(specs, pool,
                  [&](const std::string& name, SlotOptions slot) { return pool.reserve(name, std::move(slot)); });
  }
  /// What a saved adapter says of itself, beside its pools: method, numbers, type list, hashes of tables.
  virtual Json descriptor() const = 0;
  /// Lines for --check and the start of a run ("0.04 % of public shards are read by no layer").
  virtual std::vector<std::string> notes() const { return {}; }
  /// Where a broken number in slot `name`, element `index`, is read: for error messages.
  virtual std::string readers(const std::string& slot, int64_t index) const {
    return fmt::format("slot {} element {}", slot, index);
  }
};

struct AdapterMethod {
  std::string_view name, help;
  std::vector<std::string_view> keys;  // of [adapter], those that not every method reads
  std::unique_ptr<Adapter> (*make)(const AdapterConfig&, const KeyPlaces& where);
};
const std::vector<AdapterMethod>& adapter_methods();
/// nullptr for "none". @param where  places of the keys of [adapter] in the recipe, for errors
std::unique_ptr<Adapter> make_adapter(const AdapterConfig&, const KeyPlaces& where);

/// Numbers of the linear weights that the targets name: "all", a leaf ("q_proj")
/// or a path inside the block ("self_attn.q_proj").
/// @throws UserError for a target that matches nothing, listing what there is
std::vector<int> match_targets(std::span<const WeightSpec>, const std::vector<std::string>& targets,
                               const KeyPlaces& where, const std::string& method);

/// alpha / rank, or alpha / sqrt(rank) for scale = "rs".
float adapter_scale(const AdapterConfig&, int64_t rank);

}  // namespace tessera
