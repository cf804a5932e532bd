#include "io/hdf5_file.h"

#include <hdf5.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "core/device/memory.h"
#include "core/error.h"
#include "io/file_descriptor.h"
#include "io/seal.h"

// Files are functions of their contents: HDF5's timestamps are off, and nothing else in them depends on when or where.

namespace tessera {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "datasets are stored and read as little-endian");

constexpr const char* kDTypeAttribute = "dtype";  // on u16 datasets: "bf16" or "f16", which HDF5 has no types for

/// One HDF5 identifier, closed by its own function.
class Handle {
 public:
  Handle() = default;
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  // What this one held is closed by `other`.
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() { close(); }

  /// False when closing failed: for a file, its last bytes may not have been written.
  bool close() {
    const hid_t id = std::exchange(id_, H5I_INVALID_HID);
    return id < 0 || close_(id) >= 0;
  }
  bool is_open() const { return id_ >= 0; }
  operator hid_t() const { return id_; }

 private:
  hid_t id_ = H5I_INVALID_HID;
  herr_t (*close_)(hid_t) = nullptr;
};

/// The innermost record of HDF5's error stack.
std::string innermost_reason() {
  std::string reason;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* record, void* out) -> herr_t {
        if (n == 0 && record->desc) *static_cast<std::string*>(out) = record->desc;
        return 0;
      },
      &reason);
  return reason.empty() ? "the HDF5 library gives no reason" : reason;
}

[[noreturn]] void throw_hdf5_error(const fs::path& file, const std::string& what) {
  // A failed system call is told as "..., errno = 28, error message = '...', buf = 0x...": only the number is of use.
  constexpr std::string_view kLabel = "errno = ";
  const std::string reason = innermost_reason();
  if (const size_t label = reason.find(kLabel); label != std::string::npos)
    throw_file_error(file, what, std::atoi(reason.c_str() + label + kLabel.size()));
  throw UserError(file.string(), fmt::format("{}: {}", what, reason));
}

hid_t stored_type(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return H5T_IEEE_F64LE;
    case DType::f32:
      return H5T_IEEE_F32LE;
    case DType::bf16:
    case DType::f16:
      return H5T_STD_U16LE;
    case DType::i64:
      return H5T_STD_I64LE;
    case DType::i32:
      return H5T_STD_I32LE;
    case DType::i8:
      return H5T_STD_I8LE;
    case DType::u8:
      return H5T_STD_U8LE;
  }
  return H5I_INVALID_HID;
}

/// A dataspace of the shape; of rank 0 a scalar, which is a kind of its own to HDF5.
Handle make_space(const Shape& shape) {
  if (shape.rank == 0) return {H5Screate(H5S_SCALAR), H5Sclose};
  std::array<hsize_t, 4> sizes{};
  for (int axis = 0; axis < shape.rank; ++axis) sizes[axis] = static_cast<hsize_t>(shape[axis]);
  return {H5Screate_simple(shape.rank, sizes.data(), nullptr), H5Sclose};
}

/// A string of `bytes` bytes. The extra byte makes room for the empty string, and lets text hold zeros.
Handle make_text_type(size_t bytes) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, bytes + 1);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

/// Before the first use of the library. Its exit handler would try again to write files that a full disk has broken,
/// and crash; we close our files ourselves. Errors become exceptions, not prints.
void prepare_library() {
  static const bool prepared = H5dont_atexit() >= 0 && H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
  TS_CHECK(prepared, "the HDF5 library was used before");
}

Handle file_access() {
  prepare_library();
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
#if H5_VERSION_GE(1, 10, 7)
  // Cluster file systems often have no locks, and whole files that are renamed into place need none.
  H5Pset_file_locking(access, false, true);
#endif
  return access;
}

/// Held while the library is called: it is not thread-safe, not even for separate files. Public functions nest.
class LibraryTurn {
 public:
  LibraryTurn() : lock_(mutex()) {}

 private:
  static std::recursive_mutex& mutex() {
    static std::recursive_mutex only;
    return only;
  }
  std::lock_guard<std::recursive_mutex> lock_;
};

}  // namespace

struct Hdf5File::State {
  fs::path path;
  Handle file;
  bool is_writable = false;

  [[noreturn]] void fail(const std::string& dataset, const std::string& what) const {
    throw UserError(path.string(), fmt::format("dataset \"{}\" {}", dataset, what));
  }

  bool contains(const std::string& name) const {
    TS_CHECK(file.is_open(), "\"{}\" is closed", path.string());
    // H5Lexists wants every group on the way to exist.
    for (size_t end = name.find('/', 1); end != std::string::npos; end = name.find('/', end + 1))
      if (H5Lexists(file, name.substr(0, end).c_str(), H5P_DEFAULT) <= 0) return false;
    return name == "/" || H5Lexists(file, name.c_str(), H5P_DEFAULT) > 0;
  }

  Handle create_dataset(const std::string& name, hid_t type, const Shape& shape) const {
    TS_CHECK(is_writable && file.is_open(), "\"{}\" is not open for writing", path.string());
    TS_CHECK(!contains(name), "\"{}\" has the dataset \"{}\" already", path.string(), name);
    const Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
    H5Pset_create_intermediate_group(links, 1);
    const Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_obj_track_times(creation, false);
    H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);  // every element is written
    const Handle space = make_space(shape);  // named: closing it before the check would clear the reason of an error
    Handle dataset(H5Dcreate2(file, name.c_str(), type, space, links, creation, H5P_DEFAULT), H5Dclose);
    if (!dataset.is_open()) throw_hdf5_error(path, fmt::format("dataset \"{}\" cannot be written", name));
    return dataset;
  }

  void write(const std::string& name, hid_t dataset, hid_t type, const void* data) const {
    if (H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
      throw_hdf5_error(path, fmt::format("dataset \"{}\" cannot be written", name));
  }

  Handle open_dataset(const std::string& name) const {
    if (!contains(name)) fail(name, "is missing");
    Handle dataset(H5Dopen2(file, name.c_str(), H5P_DEFAULT), H5Dclose);
    if (!dataset.is_open()) fail(name, "is not a dataset");
    return dataset;
  }

  Shape shape_of(const std::string& name, hid_t dataset) const {
    const Handle space(H5Dget_space(dataset), H5Sclose);
    Shape shape;
    shape.rank = H5Sget_simple_extent_ndims(space);
    if (shape.rank < 0 || shape.rank > 4)
      fail(name, fmt::format("has {} dimensions, at most 4 are supported", shape.rank));
    std::array<hsize_t, 4> sizes{};
    H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
    for (int axis = 0; axis < shape.rank; ++axis) shape.dims[axis] = static_cast<int64_t>(sizes[axis]);
    return shape;
  }

  DType dtype_of(const std::string& name, hid_t dataset) const {
    const Handle type(H5Dget_type(dataset), H5Tclose);
    // bf16 and f16 are stored as 16-bit words, with an attribute that says which.
    if (H5Tequal(type, H5T_STD_U16LE) > 0) return sixteen_bit_dtype(name, dataset);
    for (DType dtype : {DType::f64, DType::f32, DType::i64, DType::i32, DType::i8, DType::u8})
      if (H5Tequal(type, stored_type(dtype)) > 0) return dtype;
    fail(name, "has a type that this program does not write");
  }

  DType sixteen_bit_dtype(const std::string& name, hid_t dataset) const {
    std::array<char, 8> text{};
    if (H5Aexists(dataset, kDTypeAttribute) > 0) {
      const Handle attribute(H5Aopen(dataset, kDTypeAttribute, H5P_DEFAULT), H5Aclose);
      H5Aread(attribute, make_text_type(text.size() - 1), text.data());
    }
    for (DType dtype : {DType::bf16, DType::f16})
      if (name_of(dtype) == text.data()) return dtype;
    fail(name, "has 16-bit elements and no attribute \"dtype\" of \"bf16\" or \"f16\"");
  }

  void read_elements(const std::string& name, hid_t dataset, hid_t in_memory, hid_t in_file, TensorView out) const {
    TS_CHECK(out.is_contiguous(), "view {} for \"{}\" is not contiguous", out.shape.text(), name);
    if (H5Dread(dataset, stored_type(out.dtype), in_memory, in_file, H5P_DEFAULT, out.mutable_data()) < 0)
      throw_hdf5_error(path, fmt::format("dataset \"{}\" cannot be read", name));
  }
};

Hdf5File::Hdf5File(std::unique_ptr<State> state) : state_(std::move(state)) {}
Hdf5File::Hdf5File(Hdf5File&&) noexcept = default;
Hdf5File& Hdf5File::operator=(Hdf5File&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}
Hdf5File::~Hdf5File() {
  const LibraryTurn turn;
  state_.reset();
}

Hdf5File Hdf5File::create(const fs::path& path) {
  FileDescriptor::create(path);  // for the system's reason when that fails
  const LibraryTurn turn;
  const Handle access = file_access();
  const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  // Left free in front of HDF5's own bytes: the seal goes there.
  H5Pset_userblock(creation, kUserBlockBytes);
  auto state = std::make_unique<State>();
  state->path = path;
  state->is_writable = true;
  state->file = Handle(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), H5Fclose);
  if (!state->file.is_open()) throw_hdf5_error(path, "cannot be created");
  return Hdf5File(std::move(state));
}

Hdf5File Hdf5File::open(const fs::path& path, bool verify_seal) {
  const Seal seal = read_seal(path);
  // Before the library sees it: what passes is a file that it wrote itself.
  if (verify_seal) require_sealed_contents(path, seal);
  const LibraryTurn turn;
  const Handle access = file_access();
  auto state = std::make_unique<State>();
  state->path = path;
  state->file = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), H5Fclose);
  if (!state->file.is_open()) throw_hdf5_error(path, "cannot be opened");
  return Hdf5File(std::move(state));
}

void Hdf5File::write(const std::string& path, ConstView view) {
  const LibraryTurn turn;
  TS_CHECK(view.is_contiguous(), "view {} for \"{}\" is not contiguous", view.shape.text(), path);
  const hid_t type = stored_type(view.dtype);
  const Handle dataset = state_->create_dataset(path, type, view.shape);
  if (view.dtype == DType::bf16 || view.dtype == DType::f16) {
    const std::string name(name_of(view.dtype));
    const Handle text = make_text_type(name.size());
    const Handle attribute(H5Acreate2(dataset, kDTypeAttribute, text, make_space({}), H5P_DEFAULT, H5P_DEFAULT),
                           H5Aclose);
    if (H5Awrite(attribute, text, name.c_str()) < 0)
      throw_hdf5_error(state_->path, fmt::format("dataset \"{}\" cannot be written", path));
  }
  const OnHost host(view);
  state_->write(path, dataset, type, host.view().data);
}

void Hdf5File::write_text(const std::string& path, const std::string& utf8) {
  const LibraryTurn turn;
  const Handle type = make_text_type(utf8.size());
  state_->write(path, state_->create_dataset(path, type, {}), type, utf8.c_str());
}

void Hdf5File::write_integer(const std::string& path, int64_t value) { write(path, ConstView(&value, {}, DType::i64)); }
void Hdf5File::write_number(const std::string& path, double value) { write(path, ConstView(&value, {}, DType::f64)); }

bool Hdf5File::contains(const std::string& path) const {
  const LibraryTurn turn;
  return state_->contains(path);
}

std::vector<std::string> Hdf5File::list(const std::string& group) const {
  const LibraryTurn turn;
  if (!contains(group)) throw UserError(state_->path.string(), fmt::format("group \"{}\" is missing", group));
  const Handle opened(H5Gopen2(state_->file, group.c_str(), H5P_DEFAULT), H5Gclose);
  H5G_info_t info{};
  if (H5Gget_info(opened, &info) < 0)
    throw UserError(state_->path.string(), fmt::format("\"{}\" is not a group", group));
  std::vector<std::string> names;
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const auto name_at = [&](char* name, size_t bytes) {
      return H5Lget_name_by_idx(opened, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, bytes, H5P_DEFAULT);
    };
    std::string name(static_cast<size_t>(std::max<ssize_t>(name_at(nullptr, 0), 0)), '\0');
    name_at(name.data(), name.size() + 1);
    names.push_back(std::move(name));
  }
  return names;
}

Shape Hdf5File::shape_of(const std::string& path) const {
  const LibraryTurn turn;
  return state_->shape_of(path, state_->open_dataset(path));
}

DType Hdf5File::dtype_of(const std::string& path) const {
  const LibraryTurn turn;
  return state_->dtype_of(path, state_->open_dataset(path));
}

void Hdf5File::read(const std::string& path, TensorView out) const {
  const LibraryTurn turn;
  const Handle dataset = state_->open_dataset(path);
  const DType stored = state_->dtype_of(path, dataset);
  const Shape shape = state_->shape_of(path, dataset);
  if (stored != out.dtype || !(shape == out.shape))
    state_->fail(path, fmt::format("holds {} {}, expected {} {}", name_of(stored), shape.text(), name_of(out.dtype),
                                   out.shape.text()));
  const WrittenOnHost host(out);
  state_->read_elements(path, dataset, H5S_ALL, H5S_ALL, host.view());
}

void Hdf5File::read_range(const std::string& path, int64_t begin, TensorView out) const {
  const LibraryTurn turn;
  const Handle dataset = state_->open_dataset(path);
  const DType stored = state_->dtype_of(path, dataset);
  const Shape shape = state_->shape_of(path, dataset);
  const int64_t count = out.shape.count();
  if (stored != out.dtype || shape.rank != 1 || begin < 0 || begin > shape[0] - count)
    state_->fail(path, fmt::format("holds {} {}, expected elements {} to {} of {}", name_of(stored), shape.text(),
                                   begin, begin + count, name_of(out.dtype)));
  if (count == 0) return;
  const Handle in_file(H5Dget_space(dataset), H5Sclose);
  const auto first = static_cast<hsize_t>(begin), length = static_cast<hsize_t>(count);
  H5Sselect_hyperslab(in_file, H5S_SELECT_SET, &first, nullptr, &length, nullptr);
  state_->read_elements(path, dataset, make_space({count}), in_file, out);
}

Tensor Hdf5File::read(const std::string& path) const {
  Tensor tensor(shape_of(path), dtype_of(path));
  read(path, tensor);
  return tensor;
}

std::string Hdf5File::read_text(const std::string& path) const {
  const LibraryTurn turn;
  const Handle dataset = state_->open_dataset(path);
  const Handle type(H5Dget_type(dataset), H5Tclose);
  // Only text as write_text makes it: one string of fixed size.
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0 || state_->shape_of(path, dataset).rank != 0)
    state_->fail(path, "is not text");
  std::string text(H5Tget_size(type), '\0');
  if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data()) < 0)
    throw_hdf5_error(state_->path, fmt::format("dataset \"{}\" cannot be read", path));
  text.pop_back();  // make_text_type's extra byte
  return text;
}

int64_t Hdf5File::read_integer(const std::string& path) const {
  int64_t value = 0;
  read(path, TensorView(&value, {}, DType::i64));
  return value;
}

double Hdf5File::read_number(const std::string& path) const {
  double value = 0;
  read(path, TensorView(&value, {}, DType::f64));
  return value;
}

void Hdf5File::seal() {
  TS_CHECK(state_->is_writable && state_->file.is_open(), "\"{}\" is not open for writing", state_->path.string());
  {
    // Closed first: the library writes its last bytes then, and the seal covers them all.
    const LibraryTurn turn;
    if (!state_->file.close()) throw_hdf5_error(state_->path, "cannot be written");
  }
  write_seal(state_->path);
}

std::string Hdf5File::seal_of(const fs::path& path) { return read_seal(path).sha256; }

}  // namespace tessera
