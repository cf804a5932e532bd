#pragma once
// safetensors: eight bytes of header length, a JSON header, raw little-endian tensors. One file, or shards and an
// index.

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "io/mapped_file.h"

namespace tessera {

/// The tensors of one file or of a sharded set, mapped and read in place. Shapes have 0 to 4 dimensions; dtypes are
/// F64, F32, BF16, F16, I64, I32, I8, U8 and BOOL (as u8). Tensors of a file whose header has an odd length lie
/// unaligned; those, and only those, are copied at `open` into aligned memory of this process, which the ranks of a
/// node do not share.
class SafetensorsReader {
 public:
  /// One file. @throws UserError naming the file, and the tensor where one is at fault: header longer than the file,
  /// no JSON, a name twice, unknown dtype, more than 4 dimensions, offsets out of range or not matching the shape, data
  /// that overlap or belong to no tensor
  static SafetensorsReader open(const std::filesystem::path& file);
  /// A Hugging Face folder: model.safetensors, or the shards that model.safetensors.index.json lists (each checked to
  /// exist and to hold what the index says). A tensor in two shards is an error.
  static SafetensorsReader open_folder(const std::filesystem::path& folder);

  const std::vector<std::string>& names() const { return names_; }  // sorted
  bool contains(const std::string& name) const { return tensors_.count(name) > 0; }
  /// A view into the mapped file (or the aligned copy); valid while `file_of(name)` or this reader lives.
  /// @throws UserError when absent, with the nearest name
  ConstView at(const std::string& name) const;
  std::shared_ptr<const MappedFile> file_of(const std::string& name) const;
  /// Every file that tensors lie in.
  std::vector<std::shared_ptr<const MappedFile>> files() const { return files_; }
  /// From now on each tensor (first) is known by another name (second), which is free.
  void rename(const std::vector<std::pair<std::string, std::string>>& names);
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  struct Entry {
    ConstView view;
    std::shared_ptr<const MappedFile> file;  // keeps the aligned copy too, where there is one
  };
  void add_file(const std::filesystem::path&);
  void sort_names();
  std::string where_;  // the file or folder, for errors
  std::vector<std::string> names_;
  std::vector<std::shared_ptr<const MappedFile>> files_;
  std::map<std::string, Entry> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Writes tensors (contiguous, names distinct) atomically: temporary file, fsync, rename, fsync of the folder.
/// Data start at a multiple of 64 bytes. Tensors are laid out by descending element size, and in the order given within
/// one size: so each is aligned to its elements without holes, which the format forbids.
/// @param metadata  `transformers` wants {"format": "pt"} of a model's file
/// @param before_each  called before each tensor is written, for long writes; what it throws leaves `file` as it was
/// @throws UserError naming `file` when it cannot be written
void write_safetensors(const std::filesystem::path& file, const std::vector<std::pair<std::string, ConstView>>& tensors,
                       const std::map<std::string, std::string>& metadata = {},
                       const std::function<void()>& before_each = {});

}  // namespace tessera
