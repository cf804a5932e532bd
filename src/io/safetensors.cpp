#include "io/safetensors.h"
#include "io/safetensors_size.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>
#include <tuple>
#include <utility>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/json.h"
#include "io/file_descriptor.h"
#include "io/files.h"
#include "io/json_file.h"

// A file:   | u64 header length | header: JSON, padded with spaces | data                     |
//                                 {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
// Offsets count from the start of the data; the tensors cover the data without holes or overlap.

namespace tessera {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "tensors are used in place, and stored little-endian");

constexpr int64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the reference implementation
// A cache line, and a multiple of every element's size.
constexpr int64_t kDataAlignment = 64;
constexpr const char* kMetadataKey = "__metadata__";

constexpr std::pair<const char*, DType> kDTypes[] = {{"F64", DType::f64}, {"F32", DType::f32}, {"BF16", DType::bf16},
                                                     {"F16", DType::f16}, {"I64", DType::i64}, {"I32", DType::i32},
                                                     {"I8", DType::i8},   {"U8", DType::u8},   {"BOOL", DType::u8}};

/// One tensor as the header tells it; `begin` and `end` are bytes of the data.
struct Description {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  int64_t begin = 0, end = 0;
};

// The parsing functions throw UserErrors without a place; with_context() and add_file() say it.

/// Runs `parse` and puts `context` before the message of its errors.
template <class Parse> auto with_context(const std::string& context, Parse parse) {
  try {
    return parse();
  } catch (const UserError& error) {
    throw UserError("", context + ": " + error.message(), error.hint());
  }
}

std::string quoted_tensor(const std::string& name) { return fmt::format("tensor \"{}\"", name); }

DType parse_dtype(const std::string& text) {
  for (const auto& [name, dtype] : kDTypes)
    if (text == name) return dtype;
  throw UserError(
      "", fmt::format("the dtype \"{}\" is not supported", text),
      "weights are read from F32, BF16 and F16: a quantised model has to be converted to one of them first");
}

/// Refuses sizes whose strides or bytes would overflow, even where another dimension is 0.
Shape parse_shape(const Json::Array& sizes, DType dtype) {
  if (sizes.size() > 4) throw UserError("", fmt::format("{} dimensions, at most 4 are supported", sizes.size()));
  Shape shape;
  int64_t bytes = size_of(dtype);
  for (const Json& item : sizes) {
    const int64_t size = item.as_integer();
    if (size < 0) throw UserError("", fmt::format("a dimension of {}", size));
    // A size of 0 counts as 1: strides are products of the other sizes, and have to fit as well.
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(size, 1), &bytes))
      throw UserError("", "the shape has more elements than memory can hold");
    shape.dims[shape.rank++] = size;
  }
  return shape;
}

/// A name twice says two things, and readers differ in which they take.
void refuse_duplicate_keys(const Json& object) {
  std::set<std::string_view> seen;
  for (const auto& [key, value] : object.members())
    if (!seen.insert(key).second) throw UserError("", fmt::format("the key \"{}\" appears twice", key));
}

Description parse_description(const std::string& name, const Json& json, int64_t data_bytes) {
  Description tensor;
  tensor.name = name;
  refuse_duplicate_keys(json);
  tensor.dtype = parse_dtype(json.at("dtype").as_string());
  tensor.shape = parse_shape(json.at("shape").items(), tensor.dtype);
  const Json::Array& offsets = json.at("data_offsets").items();
  if (offsets.size() != 2) throw UserError("", fmt::format("data_offsets has {} numbers, expected 2", offsets.size()));
  tensor.begin = offsets[0].as_integer();
  tensor.end = offsets[1].as_integer();
  if (tensor.begin < 0 || tensor.begin > tensor.end)
    throw UserError("", fmt::format("data_offsets [{}, {}] is no range", tensor.begin, tensor.end));
  if (tensor.end > data_bytes)
    throw UserError("", fmt::format("ends at byte {} of the data, which has {}", tensor.end, data_bytes),
                    "the file was cut short: copy or download it again");
  // parse_shape has made sure that this fits.
  const int64_t wanted = tensor.shape.count() * size_of(tensor.dtype);
  if (tensor.end - tensor.begin != wanted)
    throw UserError("", fmt::format("has {} bytes, but {} {} takes {}", tensor.end - tensor.begin,
                                    name_of(tensor.dtype), tensor.shape.text(), wanted));
  return tensor;
}

/// The tensors must cover the data exactly: anything else is a damaged file.
void check_cover(std::vector<Description> tensors, int64_t data_bytes) {
  // In the order of the data, whatever the order of the header.
  std::sort(tensors.begin(), tensors.end(), [](const Description& a, const Description& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  int64_t covered = 0;
  for (const Description& tensor : tensors) {
    if (tensor.begin < covered)
      throw UserError(
          "", fmt::format("{}: begins at byte {}, inside another tensor", quoted_tensor(tensor.name), tensor.begin));
    if (tensor.begin > covered)
      throw UserError("", fmt::format("bytes {} to {} of the data belong to no tensor", covered, tensor.begin));
    covered = tensor.end;
  }
  if (covered < data_bytes)
    throw UserError("", fmt::format("bytes {} to {} of the data belong to no tensor", covered, data_bytes));
}

std::string_view header_of(std::span<const std::byte> file) {
  const auto bytes = static_cast<int64_t>(file.size());
  if (bytes < kLengthBytes)
    throw UserError("",
                    fmt::format("not a safetensors file: {} bytes are fewer than the 8 of the header's length", bytes));
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kMaxHeaderBytes)
    throw UserError("", fmt::format("not a safetensors file: its header would have {} bytes, at most {} are allowed",
                                    length, kMaxHeaderBytes));
  // Compared before it is used: the header is read in place, and must lie within the file.
  if (length > static_cast<uint64_t>(bytes - kLengthBytes))
    throw UserError("",
                    fmt::format("its header should have {} bytes, but only {} follow", length, bytes - kLengthBytes),
                    "the file was cut short, or is no safetensors file");
  return {reinterpret_cast<const char*>(file.data()) + kLengthBytes, static_cast<size_t>(length)};
}

using Metadata = std::map<std::string, std::string>;

void parse_metadata(const Json& json, Metadata& metadata) {
  refuse_duplicate_keys(json);
  for (const auto& [key, text] : json.members()) metadata.insert_or_assign(key, text.as_string());
}

std::vector<Description> parse_header(std::string_view header, int64_t data_bytes, Metadata& metadata) {
  const Json json = with_context("header", [&] {
    Json parsed = Json::parse(header, "");
    refuse_duplicate_keys(parsed);
    return parsed;
  });
  std::vector<Description> tensors;
  for (const auto& member : json.members()) {
    if (member.first == kMetadataKey) {
      with_context(kMetadataKey, [&] { parse_metadata(member.second, metadata); });
      continue;
    }
    tensors.push_back(with_context(quoted_tensor(member.first),
                                   [&] { return parse_description(member.first, member.second, data_bytes); }));
  }
  check_cover(tensors, data_bytes);
  return tensors;
}

/// A tensor's bytes copied to aligned memory, together with the file they came from.
struct AlignedCopy {
  std::shared_ptr<const MappedFile> file;
  Tensor tensor;
};

bool is_aligned(const void* address, DType dtype) {
  return reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(size_of(dtype)) == 0;
}

}  // namespace

void SafetensorsReader::add_file(const fs::path& path) {
  const auto file = MappedFile::open(path);
  files_.push_back(file);
  const std::span<const std::byte> bytes = file->bytes();
  try {
    const std::string_view header = header_of(bytes);
    const auto data = bytes.subspan(kLengthBytes + header.size());
    for (const Description& tensor : parse_header(header, static_cast<int64_t>(data.size()), metadata_)) {
      Entry entry{ConstView(data.data() + tensor.begin, tensor.shape, tensor.dtype), file};
      if (!is_aligned(entry.view.data, tensor.dtype)) {
        auto copy = std::make_shared<AlignedCopy>(AlignedCopy{file, Tensor(tensor.shape, tensor.dtype)});
        std::memcpy(copy->tensor.view().mutable_data(), entry.view.data, static_cast<size_t>(entry.view.bytes()));
        // One pointer for both: it keeps the copy, and the copy keeps the file.
        entry = {copy->tensor.view(), {copy, file.get()}};
      }
      if (!tensors_.emplace(tensor.name, std::move(entry)).second)
        throw UserError("", quoted_tensor(tensor.name) + ": is in another shard too");
    }
  } catch (const UserError& error) {
    throw UserError(path.string(), error.message(), error.hint());
  }
}

void SafetensorsReader::sort_names() {
  names_.clear();
  for (const auto& [name, entry] : tensors_) names_.push_back(name);  // a map's order is sorted
}

SafetensorsReader SafetensorsReader::open(const fs::path& file) {
  SafetensorsReader reader;
  reader.where_ = file.string();
  reader.add_file(file);
  reader.sort_names();
  return reader;
}

namespace {

/// weight_map of an index: tensor -> shard, in the file's order.
std::vector<std::pair<std::string, std::string>> read_index(const fs::path& path) {
  const Json index = read_configuration(path);
  try {
    std::vector<std::pair<std::string, std::string>> shard_of;
    for (const auto& member : index.at("weight_map").members()) {
      const std::string shard = with_context(quoted_tensor(member.first), [&] { return member.second.as_string(); });
      if (fs::path(shard).filename() != shard)  // a folder's index must not reach outside of it
        throw UserError("", fmt::format("the shard \"{}\" is not a plain file name", shard));
      shard_of.emplace_back(member.first, shard);
    }
    if (shard_of.empty()) throw UserError("", "weight_map lists no tensors");
    return shard_of;
  } catch (const UserError& error) {
    throw UserError(path.string(), error.message(), error.hint());
  }
}

}  // namespace

SafetensorsReader SafetensorsReader::open_folder(const fs::path& folder) {
  const fs::path single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (fs::exists(single)) return open(single);
  if (!fs::exists(index))
    throw UserError(folder.string(), "holds neither model.safetensors nor model.safetensors.index.json");
  const auto shard_of = read_index(index);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);

  SafetensorsReader reader;
  reader.where_ = folder.string();
  for (const std::string& shard : shards) {
    if (!fs::exists(folder / shard))
      throw UserError(index.string(), fmt::format("lists the shard \"{}\", which is not in the folder", shard));
    reader.add_file(folder / shard);
  }
  // The index has to be right: a tensor that it places wrongly is missing for readers who go by it.
  for (const auto& [tensor, shard] : shard_of)
    if (!reader.contains(tensor) || reader.file_of(tensor)->path().filename() != shard)
      throw UserError(index.string(),
                      fmt::format("says that \"{}\" holds the tensor \"{}\", but it does not", shard, tensor));
  reader.sort_names();
  return reader;
}

ConstView SafetensorsReader::at(const std::string& name) const {
  if (const auto found = tensors_.find(name); found != tensors_.end()) return found->second.view;
  const std::string nearest = nearest_name(name, names_);
  throw UserError(where_, fmt::format("has no tensor \"{}\"", name),
                  nearest.empty() ? "" : fmt::format("the nearest name is \"{}\"", nearest));
}

void SafetensorsReader::rename(const std::vector<std::pair<std::string, std::string>>& names) {
  for (const auto& [name, other] : names) {
    TS_CHECK(contains(name) && !contains(other), "\"{}\" cannot become \"{}\"", name, other);
    // Moved under its new key, the entry itself stays as it is, and so do views that were handed out.
    auto node = tensors_.extract(name);
    node.key() = other;
    tensors_.insert(std::move(node));
  }
  sort_names();
}

std::shared_ptr<const MappedFile> SafetensorsReader::file_of(const std::string& name) const {
  at(name);  // for the error
  return tensors_.find(name)->second.file;
}

namespace {

using NamedTensors = std::vector<std::pair<std::string, ConstView>>;

NamedTensors in_layout_order(NamedTensors tensors) {
  std::set<std::string_view> names;
  for (const auto& [name, view] : tensors) {
    TS_CHECK(name != kMetadataKey && names.insert(name).second, "the tensor name \"{}\" is taken", name);
    TS_CHECK(view.is_contiguous(), "tensor \"{}\" {} is not contiguous", name, view.shape.text());
  }
  // Larger elements first: each begins at a multiple of its own size, and the format allows no holes to make that so.
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const auto& a, const auto& b) { return size_of(a.second.dtype) > size_of(b.second.dtype); });
  return tensors;
}

const char* stored_name(DType wanted) {
  for (const auto& [name, dtype] : kDTypes)
    if (dtype == wanted) return name;
  TS_CHECK(false, "dtype {} has no safetensors name", name_of(wanted));
  return nullptr;
}

Json description(const ConstView& view, int64_t begin) {
  Json shape = Json::array();
  for (int axis = 0; axis < view.shape.rank; ++axis) shape.push_back(view.shape[axis]);
  return Json::object()
      .set("dtype", stored_name(view.dtype))
      .set("shape", shape)
      .set("data_offsets", Json::Array{begin, begin + view.bytes()});
}

/// Header length and header, padded so that the data begin aligned.
std::string encode_header(const NamedTensors& tensors, const Metadata& metadata) {
  Json::Object header;
  if (!metadata.empty()) {
    Json texts = Json::object();
    for (const auto& [key, text] : metadata) texts.set(key, text);
    header.emplace_back(kMetadataKey, std::move(texts));
  }
  int64_t offset = 0;
  for (const auto& [name, view] : tensors) {
    header.emplace_back(name, description(view, offset));
    offset += view.bytes();
  }
  std::string text = Json(std::move(header)).dump();
  // Spaces behind the JSON belong to the header: the data begin at a multiple of 64.
  const size_t total = (kLengthBytes + text.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
  text.resize(total - kLengthBytes, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), kLengthBytes) + text;
}

}  // namespace

int64_t safetensors_bytes(const NamedTensors& tensors) {
  auto bytes = static_cast<int64_t>(encode_header(in_layout_order(tensors), {}).size());
  for (const auto& [name, view] : tensors) bytes += view.bytes();
  return bytes;
}

void write_safetensors(const fs::path& file, const NamedTensors& tensors, const Metadata& metadata,
                       const std::function<void()>& before_each) {
  const NamedTensors ordered = in_layout_order(tensors);
  const std::string header = encode_header(ordered, metadata);
  write_file_atomically(file, [&](const fs::path& temporary) {
    const FileDescriptor out = FileDescriptor::create(temporary);
    out.write(std::as_bytes(std::span(header)));
    // One after the other, in the order of the offsets.
    for (const auto& [name, view] : ordered) {
      if (before_each) before_each();
      const OnHost host(view);
      out.write({static_cast<const std::byte*>(host.view().data), static_cast<size_t>(view.bytes())});
    }
  });
}

}  // namespace tessera
