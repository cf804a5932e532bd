#pragma once
// safetensors: eight bytes of header length, a JSON header, raw little-endian tensors. One file, or shards and an index.

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "io/mapped_file.h"

namespace tessera {

/// The tensors of one file or of a sharded set, mapped and read in place. Shapes have 0 to 4 dimensions.
class SafetensorsReader {
 public:
  /// One file. @throws UserError naming the file, and the tensor where one is at fault: header longer than the file,
  /// no JSON, unknown dtype, offsets out of range, overlapping or not matching the shape, unaligned data, more than 4 dimensions
  static SafetensorsReader open(const std::filesystem::path& file);
  /// A Hugging Face folder: model.safetensors, or the shards that model.safetensors.index.json lists (each checked to exist
  /// and to hold what the index says).
  static SafetensorsReader open_folder(const std::filesystem::path& folder);

  const std::vector<std::string>& names() const { return names_; }   // sorted
  bool contains(const std::string& name) const { return tensors_.count(name) > 0; }
  /// A view into the mapped file; valid while `file_of(name)` or this reader lives. @throws UserError when absent, with the nearest name
  ConstView at(const std::string& name) const;
  std::shared_ptr<const MappedFile> file_of(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  struct Entry {
    ConstView view;
    std::shared_ptr<const MappedFile> file;
  };
  void add_file(const std::filesystem::path&);
  std::vector<std::string> names_;
  std::map<std::string, Entry> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Writes tensors (contiguous) atomically: temporary file, fsync, rename, fsync of the folder.
/// Data starts at a multiple of 64 bytes; tensors are laid out in the order given.
void write_safetensors(const std::filesystem::path& file, const std::vector<std::pair<std::string, ConstView>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace tessera
