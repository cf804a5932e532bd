#pragma once
// HDF5 files with checked contents: a thin move-only wrapper of the C library, and a seal over all bytes.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace tessera {

/// Writes or reads one HDF5 file. Groups in a dataset's path are made as needed.
///
/// Files carry a 512-byte user block (which HDF5 readers skip) holding a seal: the file's length and the SHA-256 of
/// everything behind the block. A truncated or altered file is refused by `open`, which names it. Equal contents,
/// written in the same order, give equal bytes. Threads may use files of their own, or read from one, at the same time:
/// they take turns in the library, which is not thread-safe.
class Hdf5File {
 public:
  /// Replaces an existing file; inside write_file_atomically when that matters.
  /// @throws UserError when it cannot be created
  static Hdf5File create(const std::filesystem::path&);
  /// Opens a sealed file for reading.
  /// @param verify_seal  reads and hashes the whole file; without it only the seal's form and the file's length are
  ///                     checked, and datasets are read from the disk as they are asked for
  /// @throws UserError naming the file: absent, not HDF5, no seal, or the seal does not match
  static Hdf5File open(const std::filesystem::path&, bool verify_seal = true);
  Hdf5File(Hdf5File&&) noexcept;
  Hdf5File& operator=(Hdf5File&&) noexcept;
  ~Hdf5File();

  // Created files only, each path once. @throws UserError naming the file on a full disk and the like
  void write(const std::string& path, ConstView);  // contiguous; bf16 and f16 as u16 with an attribute "dtype"
  void write_text(const std::string& path, const std::string& utf8);
  void write_integer(const std::string& path, int64_t);
  void write_number(const std::string& path, double);

  bool contains(const std::string& path) const;
  std::vector<std::string> list(const std::string& group) const;  // names directly below, sorted
  Shape shape_of(const std::string& path) const;
  DType dtype_of(const std::string& path) const;
  /// Reads a whole dataset; the view's shape and dtype must match the stored ones.
  /// @throws UserError naming file and dataset
  void read(const std::string& path, TensorView) const;
  /// Reads elements [begin, begin + view.shape.count()) of a rank-1 dataset, and no others from the disk.
  void read_range(const std::string& path, int64_t begin, TensorView) const;
  Tensor read(const std::string& path) const;
  std::string read_text(const std::string& path) const;
  int64_t read_integer(const std::string& path) const;
  double read_number(const std::string& path) const;

  /// Created files only: closes the file, writes the seal and syncs it to disk. Nothing else can be called after it.
  void seal();
  /// The hex digest in the user block of a sealed file.
  static std::string seal_of(const std::filesystem::path&);

 private:
  struct State;
  explicit Hdf5File(std::unique_ptr<State>);
  std::unique_ptr<State> state_;
};

}  // namespace tessera
