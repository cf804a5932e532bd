#pragma once
// Adapters beside a model that has none of them: read from their folders, each with numbers of its own, so that several
// answer at once (infer/engine.h).
//
//   FOLDER ── open_adapter ──► SavedAdapter ── load ──► LoadedAdapter ──► BoundAdapter, which rows of a batch read
//             files, hashes                   a pool

#include <filesystem>
#include <memory>
#include <string>

#include "model/model.h"

namespace tessera {

/// An adapter's folder, opened: its description is read and its file's hash is checked.
class SavedAdapter {
 public:
  virtual ~SavedAdapter() = default;
  /// "lora", "mos" or "PEFT lora".
  virtual std::string method() const = 0;
  virtual int64_t rank() const = 0;  // the largest of its deltas
  /// SHA-256 over all that its deltas come of, in hex: adapters of one content are one adapter.
  virtual const std::string& content() const = 0;
  /// @throws UserError when it belongs to another base, as far as it says one and the model knows its own. Hashes the
  ///   model's weights when that is asked for first.
  virtual void require_base(Model&) const = 0;
  /// Reserves its slots, frozen and with the stored values, and returns its deltas by weight number. Their views read
  /// `pool`, which outlives them, whatever they are read through.
  /// @throws UserError for targets that the model does not have, other layers or shapes, and numbers that are not
  ///   finite
  virtual AdapterWeights attach(Model&, ParameterPool& pool) const = 0;
};

/// @param folder  a native adapter's (adapter.json: LoRA, MoS), a run's that one lies in, or PEFT's
///   (adapter_config.json: LoRA)
/// @param where   what names it ("recipe.toml:12:1"), for errors
/// @throws UserError when there is none, or it is damaged or of a kind that is not read
std::unique_ptr<SavedAdapter> open_adapter(const std::filesystem::path& folder, const std::string& where);

/// An adapter at work on a model, which outlives it. Of a model that is only counted (Memory::counted) it is checked
/// and counted, and takes no memory.
class LoadedAdapter {
 public:
  /// @throws UserError as SavedAdapter::attach
  LoadedAdapter(const SavedAdapter&, Model&);
  LoadedAdapter(const LoadedAdapter&) = delete;
  /// The base's own deltas, then these. Assemble it once before the first pass.
  BoundAdapter& bound() { return *bound_; }
  /// Of its numbers and of its assembled matrices.
  int64_t bytes() const { return pool_.owned_bytes() + bound_->assembled_bytes(); }

 private:
  ParameterPool pool_;
  std::unique_ptr<BoundAdapter> bound_;
};

}  // namespace tessera
