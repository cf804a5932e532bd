#pragma once
// A model ready to run: config, weights bound to a pool, an adapter or none.

#include <filesystem>
#include <memory>
#include <optional>

#include "core/key_places.h"
#include "io/hub_cache.h"
#include "io/safetensors.h"
#include "model/decoder.h"
#include "model/sharing/adapter.h"
#include "model/sharing/base.h"
#include "model/sharing_io.h"

namespace tessera {

/// [model]
struct ModelOptions {
  std::filesystem::path path;  // Hugging Face folder; with init = "random" only its config.json and tokenizer are used
  std::string init = "pretrained";
  std::string dtype;                // storage of weights that are drawn, and of exports; empty: as in config.json
  std::filesystem::path tokenizer;  // folder of tokenizer.json; empty: path

  void visit(Fields& v) {
    v("path", path, path_or(cached_model),
      "Hugging Face folder: config.json, model.safetensors (or shards and index), tokenizer.json; or org/name, a model "
      "in the local cache of Hugging Face",
      OnResume::same_weights);
    v("init", init, one_of({"pretrained", "random"}),
      "pretrained: read the weights; random: draw them from train.seed");
    v("dtype", dtype, one_of({"", "f32", "bf16", "f16"}),
      "storage of drawn frozen weights and of exported models; empty: as config.json says");
    v("tokenizer", tokenizer, path_or(cached_model), "folder of tokenizer.json, or org/name; empty: model.path",
      OnResume::same_data);
  }
  void check(SectionCheck&) const;
  std::filesystem::path tokenizer_folder() const { return tokenizer.empty() ? path : tokenizer; }
};

class Model {
 public:
  struct Settings {
    ModelOptions model;
    SharingConfig sharing;
    AdapterConfig adapter;
    bool train_base = false;            // full training
    std::vector<std::string> freeze{};  // of it: regular expressions of tensors' names
    bool gradients = true;              // memory for them; forward-only training does without
    int64_t max_position = 0;           // positions 0 .. max_position-1 occur
    uint64_t seed = 0;                  // of drawn weights
    std::string where_model, where_freeze = "train.freeze";
    KeyPlaces where_sharing, where_adapter;
    DType parameters = DType::f32;   // of the pool: trained weights, their gradients, weights that are gathered from it
    DType activations = DType::f32;  // of all that a pass computes
    bool check_seal =
        true;         // hash the files of a folder that has a seal (sealed_folder.h); one rank of a node is enough
    Device device{};  // that holds values, gradients and tables
    std::shared_ptr<const SafetensorsReader> source{};  // another model's of this path: both read one mapped file
    Memory memory = Memory::held;  // counted: all is laid out for a plan, and nothing of the model's size is allocated
  };
  /// @throws UserError for files, configs and adapters at fault
  explicit Model(const Settings&);
  Model(const Model&) = delete;

  /// Of the decoder.
  const ModelConfig& config() const { return config_; }
  /// That of model.path, whose layers the decoder has all or some of.
  const ModelConfig& base_config() const { return base_config_; }
  /// Which layer of it each of the decoder's layers is, by its number.
  const std::vector<BaseLayer>& layers() const { return layers_; }
  /// The dense model's tensors; null without one. For the Settings of another model that shares their memory.
  const std::shared_ptr<const SafetensorsReader>& source() const { return source_; }
  const ModelOptions& options() const { return options_; }
  DecoderModel& decoder() { return *decoder_; }
  ParameterPool& pool() { return pool_; }
  BaseSharing& sharing() { return *sharing_; }
  /// Whether weights are views of fewer numbers.
  bool is_shared() const { return is_shared_; }
  /// By which the shared numbers were counted: the run's, or those of what was loaded.
  Rules sharing_rules() const { return sharing_rules_; }
  Adapter* adapter() { return adapter_.get(); }
  const Adapter* adapter() const { return adapter_.get(); }
  /// Deltas at work, the base's own and the adapter's; null when there are none.
  BoundAdapter* bound_adapter() { return bound_.get(); }
  /// The deltas that rows of another adapter read: the base's own, then these; without any, the base's alone.
  AdapterWeights deltas_with(AdapterWeights adapter) const;
  /// Call after every change of the pool.
  void assemble(const Context& ctx) {
    if (bound_) bound_->assemble(ctx);
  }
  /// Whether base_fingerprint can tell: of a model that is only counted, when its weights are a dense model's files.
  bool knows_base() const { return pool_.memory() == Memory::held || (!is_shared_ && source_); }
  /// Of config and stored weights (names, shapes, bytes; of a shared base its description and slots):
  /// what an adapter belongs to.
  const std::string& base_fingerprint();
  /// What a run must find again when it goes on, beside its recipe: the weights below an adapter,
  /// or the layout of a shared base.
  std::string start_fingerprint();
  /// The first weight in the base model's files that is not finite, as text; empty when there is none. Reads them all.
  std::string broken_base_weight() const;
  /// Whether the files that frozen weights are read from are still as they were when they were opened; a file that only
  /// looks changed is hashed again. @return what is to be told of one that was replaced,
  /// whose old contents this process keeps; mostly empty
  /// @throws UserError naming a file that was written to: what was computed since is of weights that nothing describes
  std::string check_files();
  /// What base and adapter say of themselves.
  std::vector<std::string> notes() const;
  /// Which weights read element `index` of a slot: for error messages.
  std::string readers(const std::string& slot, int64_t index) const;
  /// Hash of every view: ranks compare it before step 1.
  uint64_t views_fingerprint() const;
  int64_t virtual_parameters() const;  // of the dense model with the assembled deltas that are trained
  int64_t table_bytes() const { return decoder_->table_bytes() + sharing_->table_bytes(); }
  DType export_dtype() const;

 private:
  ModelOptions options_;
  ModelConfig base_config_, config_;
  std::vector<BaseLayer> layers_;
  void open_weights(const Settings&);
  std::string frozen_text() const;
  std::vector<std::shared_ptr<const MappedFile>> mapped_files() const;

  bool is_shared_;
  Rules sharing_rules_ = kNewestRules;
  std::shared_ptr<const SafetensorsReader> source_;  // a dense model
  std::optional<SavedSharing> saved_;                // or a saved pool
  std::unique_ptr<BaseSharing> sharing_;
  ParameterPool pool_;
  std::unique_ptr<Adapter> adapter_;
  std::unique_ptr<DecoderModel> decoder_;
  std::unique_ptr<BoundAdapter> bound_;
  std::string base_fingerprint_;
};

}  // namespace tessera
