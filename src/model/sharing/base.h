#pragma once
// How the base weights of a model are held: each in a slot of its own, or as views of fewer numbers. One file a method;
// registry.cpp lists them.

#include <map>
#include <memory>
#include <span>

#include "core/error.h"
#include "core/fields.h"
#include "core/json.h"
#include "core/key_places.h"
#include "core/rules.h"
#include "io/safetensors.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace tessera {

class SavedSharing;
struct FoldMaking;

/// [sharing]
struct SharingConfig {
  std::string method = "none";
  double compression = 10;
  std::optional<int64_t> pool, blocks;
  std::vector<std::string> shared = {"linears"};
  int64_t min_numel = 1024, seed = 123321;
  std::string mapper = "randomfold", layout = "row", scale = "auto", precond = "D", kappa = "unit";
  double sigma_0 = 0.04;
  int64_t tile_rows = 32, tile_cols = 32;
  std::filesystem::path load;
  Rules rules = kNewestRules;                  // of the run, or of what is loaded; not a key
  std::shared_ptr<const FoldMaking> making{};  // of a folded model that is not loaded, or not only; not a key

  void visit(Fields& v);
  void check(SectionCheck&) const;
};

/// Where base weights come from and what becomes of them.
struct BaseOptions {
  bool trainable = false;                     // full training: f32 values in the pool; otherwise frozen
  std::vector<std::string> freeze{};          // regular expressions: tensors that are not trained all the same
  DType storage = DType::f32;                 // of frozen weights that are drawn, not read
  const SafetensorsReader* source = nullptr;  // a dense model's tensors, by the specs' names; null: weights are drawn
  const SavedSharing* saved = nullptr;        // what save_sharing wrote, by the slots' names; goes before the source
  uint64_t seed = 0;                          // that ParameterPool::allocate will draw with
  std::string where_freeze = "train.freeze";  // place of the patterns, for errors
};

/// Holds the base weights of one model.
class BaseSharing {
 public:
  virtual ~BaseSharing() = default;
  /// The layers that the decoder has, and which layer of the base model each is: mostly all of them. Asked before bind,
  /// whose specs are of these layers.
  /// @throws UserError when the base model has others
  virtual std::vector<BaseLayer> layers(const ModelConfig& base) const { return all_base_layers(base); }
  /// Reserves the slots and returns one weight a spec, in their order. A pure function of config and specs: all ranks
  /// build the same without talking. Slots that are not trained and lie in a file stay there.
  /// @throws UserError naming a tensor that is missing, has another shape or no floating dtype, or cannot be shared
  virtual std::vector<Weight> bind(std::span<const WeightSpec>, ParameterPool&, const BaseOptions&) = 0;
  /// Low-rank deltas that belong to the base, by weight number; no lists where there are none. They are added before
  /// those of an adapter. Call after bind.
  virtual AdapterWeights deltas() const { return {}; }
  /// What the views are made of beside the slots' values: method, numbers, hash. A saved base and this run's must agree
  /// in it.
  virtual Json descriptor() const = 0;
  /// Bytes of the tables that tell which weight reads which number, beside the pool.
  /// Call after ParameterPool::allocate.
  virtual int64_t table_bytes() const { return 0; }
  /// Whether bind can read what save_sharing writes. Where it cannot, a training ends with the dense model, too.
  virtual bool is_loadable() const { return true; }
  /// Lines for --check and the start of a run. Call after ParameterPool::allocate.
  virtual std::vector<std::string> notes() const { return {}; }
  /// What deserves a word where the model is used and not trained; mostly nothing.
  virtual std::string caution() const { return ""; }
  /// Files that a saved base has beside its numbers and its description: names and texts.
  virtual std::vector<std::pair<std::string, std::string>> files() const { return {}; }
  /// Which weights read element `index` of slot `name`: for error messages.
  virtual std::string readers(const std::string& slot, int64_t index) const {
    return fmt::format("weight {} element {}", slot, index);
  }
};

struct SharingMethod {
  std::string_view name, help;
  std::vector<std::string_view> keys;  // of [sharing], those that not every method reads
  std::unique_ptr<BaseSharing> (*make)(const SharingConfig&, const KeyPlaces& where);
};
const std::vector<SharingMethod>& sharing_methods();
/// @param where  place of [sharing] in the recipe, for errors
std::unique_ptr<BaseSharing> make_sharing(const SharingConfig&, const KeyPlaces& where);

}  // namespace tessera
