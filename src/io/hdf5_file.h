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
/// Files carry a 512-byte user block (which HDF5 readers skip) holding a seal: the SHA-256 of everything behind it.
/// A truncated or altered file is refused by `open`, which names it.
class Hdf5File {
 public:
  static Hdf5File create(const std::filesystem::path&);                 // replaces an existing file
  /// @throws UserError naming the file: absent, not HDF5, no seal, or the seal does not match
  static Hdf5File open(const std::filesystem::path&, bool verify_seal = true);
  Hdf5File(Hdf5File&&) noexcept;
  Hdf5File& operator=(Hdf5File&&) noexcept;
  ~Hdf5File();

  void write(const std::string& path, ConstView);                       // f32, f64, bf16/f16 (as u16 with an attribute), i32, i64, u8, i8
  void write_text(const std::string& path, const std::string& utf8);
  void write_integer(const std::string& path, int64_t);
  void write_number(const std::string& path, double);

  bool contains(const std::string& path) const;
  std::vector<std::string> list(const std::string& group) const;        // names directly below, sorted
  Shape shape_of(const std::string& path) const;
  DType dtype_of(const std::string& path) const;
  /// Reads a whole dataset; the view's shape and dtype must match the stored ones. @throws UserError naming file and dataset
  void read(const std::string& path, TensorView) const;
  /// Reads elements [begin, begin + view.count()) of a rank-1 dataset.
  void read_range(const std::string& path, int64_t begin, TensorView) const;
  Tensor read(const std::string& path) const;
  std::string read_text(const std::string& path) const;
  int64_t read_integer(const std::string& path) const;
  double read_number(const std::string& path) const;

  /// Created files only: closes the file, writes the seal and syncs it to disk.
  void seal();
  /// The hex digest in the user block of a sealed file.
  static std::string seal_of(const std::filesystem::path&);

 private:
  struct State;
  explicit Hdf5File(std::unique_ptr<State>);
  std::unique_ptr<State> state_;
};

}  // namespace tessera
