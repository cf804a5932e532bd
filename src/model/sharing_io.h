#pragma once
// Native folders of a shared base: the physical numbers and their description, so that training can go on, and so that
// a frozen base is read where it lies.
//
//   <method>.safetensors    every slot under its name: "rps.pool", and what is not shared, f32
//   fold_plan.json          of a folded model: which layers are left, and what they read (docs/foldgpt.md)
//   sharing.json            format, the method's descriptor, number of parameters, SHA-256 of the file above;
//                           written last

#include <filesystem>
#include <string>

#include "core/rules.h"
#include "model/native_folder.h"

namespace tessera {

class Model;

/// The folder that holds a saved base: this one, or where it is a run's, its part.
std::filesystem::path sharing_folder(const std::filesystem::path&);

/// A saved base, opened: its description, and its slots, whole.
class SavedSharing {
 public:
  /// @throws UserError naming what is missing, altered or of another method
  SavedSharing(const std::filesystem::path& folder, const std::string& method, const std::string& where);
  /// What BaseSharing::descriptor said when it was saved.
  const Json& description() const;
  /// By which its numbers were counted.
  Rules rules() const;
  /// @throws UserError with the first value of the description that differs from this run's, both shown
  void require_same(const Json& descriptor) const;
  void require_same_config(const ModelConfig& config) const { folder_.require_same_config(config); }
  /// A slot's numbers. @param readers  tells who reads an element, when one is not finite
  /// @throws UserError when it is missing, of another shape, or not finite
  ConstView at(const std::string& name, const Shape& shape, const std::function<std::string(int64_t)>& readers) const;
  std::shared_ptr<const MappedFile> file_of(const std::string& name) const { return tensors_.file_of(name); }
  const SafetensorsReader& tensors() const { return tensors_; }

 private:
  NativeFolder folder_;
  SafetensorsReader tensors_;
};

/// Writes the model's base, which was trained; the folder is made where it is missing. Each file is replaced atomically
/// and sharing.json comes last: a save that is cut short leaves files whose hash does not match,
/// which SavedSharing refuses.
/// @throws UserError naming the file that cannot be written
void save_sharing(const std::filesystem::path& folder, Model&);

}  // namespace tessera
