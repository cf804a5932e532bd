#include "io/safetensors.h"
#include "io/safetensors_size.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "io/files.h"
#include "support/error_text.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::error_text;

/// The bytes of a file with this header and these data.
std::string encode(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

std::string bytes_of(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

class Safetensors : public ::testing::Test {
 protected:
  fs::path file() const { return folder_ / "a.safetensors"; }
  void write(const std::string& name, const std::string& bytes) { test::write_file(folder_ / name, bytes); }

  /// What the reader says of a file with these bytes, without the file's name.
  std::string fault_of(const std::string& bytes) {
    write("a.safetensors", bytes);
    const std::string text = error_text([&] { SafetensorsReader::open(file()); });
    const std::string start = file().string() + ": ";
    EXPECT_EQ(text.find(start), 0u) << text;
    return text.substr(std::min(start.size(), text.size()));
  }
  /// The same of a header before 16 bytes of data.
  std::string fault_of_header(const std::string& header) { return fault_of(encode(header, std::string(16, '\0'))); }

  std::string folder_fault() {
    return error_text([&] { SafetensorsReader::open_folder(folder_.path()); });
  }

  test::TemporaryFolder folder_;
};

TEST_F(Safetensors, EveryDTypeComesBackAsItWasWritten) {
  const std::vector<double> f64 = {0.1, -2};
  const std::vector<float> f32 = {1, 2, 3, 4, 5, 6};
  const std::vector<BFloat16> bf16 = {to_bfloat16(1.5f)};
  const std::vector<Float16> f16 = {to_float16(-0.25f), to_float16(2)};
  const std::vector<int64_t> i64 = {int64_t{1} << 40};
  const std::vector<int32_t> i32 = {-7, 8, 9};
  const std::vector<int8_t> i8 = {-1};
  const std::vector<uint8_t> u8 = {255, 0, 1};
  write_safetensors(file(), {{"u8", view_of(std::span(u8), {3})},
                             {"bf16", view_of(std::span(bf16), {})},
                             {"f32", view_of(std::span(f32), {2, 1, 3, 1})},
                             {"i8", view_of(std::span(i8), {1})},
                             {"f16", view_of(std::span(f16), {1, 2})},
                             {"i64", view_of(std::span(i64), {1})},
                             {"none", ConstView(nullptr, {0, 5}, DType::f32)},
                             {"i32", view_of(std::span(i32), {3, 1})},
                             {"f64", view_of(std::span(f64), {2})}});
  const SafetensorsReader reader = SafetensorsReader::open(file());
  EXPECT_EQ(reader.names(), (std::vector<std::string>{"bf16", "f16", "f32", "f64", "i32", "i64", "i8", "none", "u8"}));
  EXPECT_EQ(reader.at("f64").as<double>()[0], 0.1);
  EXPECT_EQ(reader.at("f32").as<float>()[5], 6.0f);
  EXPECT_EQ(reader.at("f32").shape, Shape({2, 1, 3, 1}));
  EXPECT_EQ(to_float(reader.at("bf16").as<BFloat16>()[0]), 1.5f);
  EXPECT_EQ(reader.at("bf16").shape, Shape({}));
  EXPECT_EQ(to_float(reader.at("f16").as<Float16>()[0]), -0.25f);
  EXPECT_EQ(reader.at("i64").as<int64_t>()[0], int64_t{1} << 40);
  EXPECT_EQ(reader.at("i32").as<int32_t>()[2], 9);
  EXPECT_EQ(reader.at("i8").as<int8_t>()[0], -1);
  EXPECT_EQ(reader.at("u8").as<uint8_t>()[0], 255);
  EXPECT_EQ(reader.at("none").shape, Shape({0, 5}));
  EXPECT_TRUE(reader.contains("f64"));
  EXPECT_FALSE(reader.contains("f65"));
}

TEST_F(Safetensors, WrittenDataAreAlignedWhateverTheOrderAndTheHeader) {
  const std::vector<double> wide = {1};
  const std::vector<float> middle = {1, 2, 3};
  const std::vector<uint8_t> narrow = {1, 2, 3};
  for (int padding = 0; padding < 70; ++padding) {
    const std::string name(static_cast<size_t>(padding + 1), 'x');
    write_safetensors(file(), {{name, view_of(std::span(narrow), {3})},
                               {"m", view_of(std::span(middle), {3})},
                               {"w", view_of(std::span(wide), {1})}});
    const SafetensorsReader reader = SafetensorsReader::open(file());
    const auto bytes = reader.file_of("w")->bytes();
    const auto place = [&](const std::string& tensor) {
      return static_cast<const std::byte*>(reader.at(tensor).data) - bytes.data();
    };
    ASSERT_EQ(place("w") % 64, 0);  // in the mapped file: not a copy
    ASSERT_EQ(place("m"), place("w") + 8);
    ASSERT_EQ(place(name), place("m") + 12);
    ASSERT_EQ(place(name) + 3, static_cast<std::ptrdiff_t>(bytes.size()));
  }
}

TEST_F(Safetensors, TheBytesOfAFileAreKnownBeforeItIsWritten) {
  const std::vector<double> wide = {1};
  const std::vector<uint8_t> narrow = {1, 2, 3};
  for (int length = 1; length < 70; ++length) {
    const std::vector<std::pair<std::string, ConstView>> tensors = {
        {std::string(static_cast<size_t>(length), 'x'), view_of(std::span(narrow), {3})},
        {"w", view_of(std::span(wide), {1})}};
    write_safetensors(file(), tensors);
    ASSERT_EQ(safetensors_bytes(tensors), static_cast<int64_t>(std::filesystem::file_size(file()))) << length;
  }
}

TEST_F(Safetensors, TensorsOfOneElementSizeKeepTheirOrder) {
  const std::vector<float> one = {1}, two = {2};
  write_safetensors(file(), {{"z", view_of(std::span(one), {1})}, {"a", view_of(std::span(two), {1})}});
  const std::string bytes = test::read_file(file());
  EXPECT_EQ(bytes.substr(bytes.size() - 8), bytes_of({1, 2}));
}

TEST_F(Safetensors, MetadataComeBack) {
  const std::vector<float> values = {1};
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"note", "a \"b\"\nc"}};
  write_safetensors(file(), {{"x", view_of(std::span(values), {1})}}, metadata);
  EXPECT_EQ(SafetensorsReader::open(file()).metadata(), metadata);
}

TEST_F(Safetensors, AFileWithoutTensorsIsFine) {
  write_safetensors(file(), {});
  EXPECT_TRUE(SafetensorsReader::open(file()).names().empty());
}

TEST_F(Safetensors, BooleansAreReadAsBytes) {
  write("a.safetensors", encode(R"({"b":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", std::string("\1\0", 2)));
  const SafetensorsReader reader = SafetensorsReader::open(file());
  EXPECT_EQ(reader.at("b").as<uint8_t>()[0], 1);
}

TEST_F(Safetensors, UnalignedTensorsAreCopiedAndOnlyThose) {
  // The header's length decides how the data lie: all residues of 8.
  for (int padding = 0; padding < 8; ++padding) {
    const std::string header =
        R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}})" +
        std::string(static_cast<size_t>(padding), ' ');
    write("a.safetensors", encode(header, bytes_of({1.5f, -2}) + "\7"));
    std::shared_ptr<const MappedFile> kept;
    ConstView x, y;
    {
      const SafetensorsReader reader = SafetensorsReader::open(file());
      x = reader.at("x");
      y = reader.at("y");
      kept = reader.file_of("x");
    }  // the file alone keeps the views alive, the copied one too
    EXPECT_EQ(x.as<float>()[0], 1.5f);
    EXPECT_EQ(x.as<float>()[1], -2.0f);
    EXPECT_EQ(y.as<uint8_t>()[0], 7);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(x.data) % 4, 0u);
    const auto* begin = kept->bytes().data();
    const bool is_in_place = x.data >= begin && x.data < begin + kept->bytes().size();
    EXPECT_EQ(is_in_place, (8 + header.size()) % 4 == 0);
    EXPECT_TRUE(y.data >= begin && y.data < begin + kept->bytes().size());
  }
}

TEST_F(Safetensors, AnAbsentTensorIsAnErrorWithTheNearestName) {
  const std::vector<float> values = {1};
  write_safetensors(file(), {{"lm_head.weight", view_of(std::span(values), {1})}});
  const SafetensorsReader reader = SafetensorsReader::open(file());
  EXPECT_EQ(error_text([&] { reader.at("lm_head.wieght"); }),
            file().string() + ": has no tensor \"lm_head.wieght\"\n  the nearest name is \"lm_head.weight\"");
  EXPECT_EQ(error_text([&] { reader.file_of("q"); }), file().string() + ": has no tensor \"q\"");
}

TEST_F(Safetensors, WhatIsNoSafetensorsFileIsNamed) {
  EXPECT_EQ(error_text([&] { SafetensorsReader::open(file()); }),
            file().string() + ": cannot be opened: No such file or directory");
  EXPECT_EQ(fault_of(""), "not a safetensors file: 0 bytes are fewer than the 8 of the header's length");
  EXPECT_EQ(fault_of("1234567"), "not a safetensors file: 7 bytes are fewer than the 8 of the header's length");
  EXPECT_EQ(fault_of(std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8)),
            "not a safetensors file: its header would have 18446744073709551615 bytes, at most 100000000 are allowed");
  EXPECT_EQ(fault_of(std::string("\3\0\0\0\0\0\0\0{}", 10)),
            "its header should have 3 bytes, but only 2 follow\n  the file was cut short, or is no safetensors file");
  EXPECT_EQ(fault_of(encode("", "")).find("header: not valid JSON at byte "), 0u);
  EXPECT_EQ(fault_of(encode("{\"a\":", "")).find("header: not valid JSON at byte "), 0u);
  EXPECT_EQ(fault_of(encode("[]", "")), "header: expected an object, found an array");
}

TEST_F(Safetensors, FaultsOfATensorNameIt) {
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F8_E4M3","shape":[16],"data_offsets":[0,16]}})"),
            "tensor \"a\": the dtype \"F8_E4M3\" is not supported\n"
            "  weights are read from F32, BF16 and F16: a quantised model has to be converted to one of them first");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[1,1,2,1,2],"data_offsets":[0,16]}})"),
            "tensor \"a\": 5 dimensions, at most 4 are supported");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}})"),
            "tensor \"a\": a dimension of -4");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}})"),
            "tensor \"a\": the shape has more elements than memory can hold");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}})"),
            "tensor \"a\": the shape has more elements than memory can hold");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}})"),
            "tensor \"a\": expected an integer, found a number");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}})"),
            "tensor \"a\": has 16 bytes, but f32 [3] takes 12");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}})"),
            "tensor \"a\": ends at byte 24 of the data, which has 16\n"
            "  the file was cut short: copy or download it again");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}})"),
            "tensor \"a\": data_offsets [16, 0] is no range");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}})"),
            "tensor \"a\": data_offsets [-16, 0] is no range");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0]}})"),
            "tensor \"a\": data_offsets has 1 numbers, expected 2");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[4]}})"),
            "tensor \"a\": the key \"data_offsets\" is missing");
  EXPECT_EQ(fault_of_header(R"({"a":{"shape":[4],"data_offsets":[0,16]}})"),
            "tensor \"a\": the key \"dtype\" is missing");
  EXPECT_EQ(fault_of_header(R"({"a":[]})"), "tensor \"a\": expected an object, found an array");
}

TEST_F(Safetensors, DuplicateNamesAreRefused) {
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                            R"("a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})"),
            "header: the key \"a\" appears twice");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[4],"shape":[4],"data_offsets":[0,16]}})"),
            "tensor \"a\": the key \"shape\" appears twice");
  EXPECT_EQ(fault_of_header(R"({"__metadata__":{"k":"1","k":"2"}})"), "__metadata__: the key \"k\" appears twice");
}

TEST_F(Safetensors, MetadataMustBeText) {
  EXPECT_EQ(fault_of_header(R"({"__metadata__":{"k":1}})"), "__metadata__: expected a string, found a number");
}

TEST_F(Safetensors, TensorsMustCoverTheDataExactly) {
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},)"
                            R"("b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})"),
            "tensor \"b\": begins at byte 8, inside another tensor");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                            R"("b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})"),
            "bytes 4 to 8 of the data belong to no tensor");
  EXPECT_EQ(fault_of_header(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})"),
            "bytes 12 to 16 of the data belong to no tensor");
  EXPECT_EQ(fault_of_header("{}"), "bytes 0 to 16 of the data belong to no tensor");
}

TEST_F(Safetensors, AFullDiskIsNamedAndTheOldFileStays) {
  const std::vector<float> small = {1}, large(1000);
  write_safetensors(file(), {{"x", view_of(std::span(small), {1})}});
  const test::FileSizeLimit limit(2000);
  EXPECT_EQ(error_text([&] {
              write_safetensors(file(), {{"x", view_of(std::span(large), {1000})}});
            }),
            file().string() + ": cannot be written: " + test::kFileTooLarge);
  EXPECT_EQ(SafetensorsReader::open(file()).at("x").shape, Shape({1}));
}

TEST_F(Safetensors, WritingANameTwiceOrAStridedViewIsOurMistake) {
  const Tensor matrix({4, 4}, DType::f32);
  EXPECT_THROW(write_safetensors(file(), {{"x", matrix.view()}, {"x", matrix.view()}}), InternalError);
  EXPECT_THROW(write_safetensors(file(), {{"__metadata__", matrix.view()}}), InternalError);
  EXPECT_THROW(write_safetensors(file(), {{"x", matrix.view().slice_cols(0, 2)}}), InternalError);
  EXPECT_FALSE(fs::exists(file()));
}

// ---- sharded sets

class Shards : public Safetensors {
 protected:
  void SetUp() override {
    const std::vector<float> one = {1}, two = {2, 3};
    write_safetensors(folder_ / "s1.safetensors", {{"a", view_of(std::span(one), {1})}});
    write_safetensors(folder_ / "s2.safetensors", {{"b", view_of(std::span(two), {2})}}, {{"format", "pt"}});
  }
  void write_index(const std::string& weight_map) {
    write("model.safetensors.index.json", "{\"metadata\": {\"total_size\": 12}, \"weight_map\": " + weight_map + "}");
  }
  std::string index() const { return (folder_ / "model.safetensors.index.json").string() + ": "; }
};

TEST_F(Shards, AreReadAsOneSet) {
  write_index(R"({"a": "s1.safetensors", "b": "s2.safetensors"})");
  const SafetensorsReader reader = SafetensorsReader::open_folder(folder_.path());
  EXPECT_EQ(reader.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(reader.at("b").as<float>()[1], 3.0f);
  EXPECT_EQ(reader.file_of("a")->path().filename(), "s1.safetensors");
  EXPECT_EQ(reader.metadata().at("format"), "pt");
  EXPECT_EQ(error_text([&] { reader.at("zzzz"); }), folder_.path().string() + ": has no tensor \"zzzz\"");
}

TEST_F(Shards, ASingleFileIsPreferredToAnIndex) {
  write_index(R"({"a": "s1.safetensors"})");
  fs::copy_file(folder_ / "s2.safetensors", folder_ / "model.safetensors");
  EXPECT_EQ(SafetensorsReader::open_folder(folder_.path()).names(), std::vector<std::string>{"b"});
}

TEST_F(Shards, TheIndexMustAgreeWithTheFolder) {
  EXPECT_EQ(folder_fault(),
            folder_.path().string() + ": holds neither model.safetensors nor model.safetensors.index.json");
  write_index(R"({"a": "s1.safetensors", "b": "s3.safetensors"})");
  EXPECT_EQ(folder_fault(), index() + "lists the shard \"s3.safetensors\", which is not in the folder");
  write_index(R"({"a": "s1.safetensors", "b": "s1.safetensors"})");
  EXPECT_EQ(folder_fault(), index() + "says that \"s1.safetensors\" holds the tensor \"b\", but it does not");
  write_index(R"({"a": "s2.safetensors", "b": "s1.safetensors"})");
  EXPECT_EQ(folder_fault(), index() + "says that \"s2.safetensors\" holds the tensor \"a\", but it does not");
  fs::copy_file(folder_ / "s1.safetensors", folder_ / "s4.safetensors");
  write_index(R"({"a": "s1.safetensors", "c": "s4.safetensors"})");
  EXPECT_EQ(folder_fault(), (folder_ / "s4.safetensors").string() + ": tensor \"a\": is in another shard too");
}

TEST_F(Shards, AMalformedIndexIsNamed) {
  write("model.safetensors.index.json", "{");
  EXPECT_EQ(folder_fault().find(index() + "not valid JSON at byte "), 0u);
  write("model.safetensors.index.json", "{}");
  EXPECT_EQ(folder_fault(), index() + "the key \"weight_map\" is missing");
  write_index("[]");
  EXPECT_EQ(folder_fault(), index() + "expected an object, found an array");
  write_index(R"({"a": 1})");
  EXPECT_EQ(folder_fault(), index() + "tensor \"a\": expected a string, found a number");
  write_index(R"({"a": "../s1.safetensors"})");
  EXPECT_EQ(folder_fault(), index() + "the shard \"../s1.safetensors\" is not a plain file name");
}

// ---- mutations

/// Changes a few bytes, cuts, repeats or inserts.
std::string mutate(std::string bytes, std::mt19937_64& random) {
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  static const std::string kTokens[] = {"-1",  "9223372036854775807", "1e999", "[]", "{}", "null", "\"", "F64", "0",
                                        "\xff"};
  for (size_t edits = 1 + below(3); edits > 0 && !bytes.empty(); --edits) {
    // Most faults should be in the header: the data cannot be wrong.
    const size_t place = below(4) == 0 ? below(bytes.size()) : below(std::min<size_t>(bytes.size(), 200));
    switch (below(5)) {
      case 0:
        bytes[place] = static_cast<char>(random());
        break;
      case 1:
        bytes[place] = static_cast<char>(bytes[place] ^ (1 << below(8)));
        break;
      case 2:
        bytes.resize(place);
        break;
      case 3:
        bytes.insert(place, kTokens[below(std::size(kTokens))]);
        break;
      case 4:
        bytes.erase(place, 1 + below(8));
        break;
    }
  }
  return bytes;
}

/// Reads every byte of every tensor: a view outside of the file would crash.
uint64_t read_everything(const SafetensorsReader& reader) {
  uint64_t sum = 0;
  for (const std::string& name : reader.names()) {
    const ConstView view = reader.at(name);
    const auto* bytes = static_cast<const uint8_t*>(view.data);
    for (int64_t i = 0; i < view.bytes(); ++i) sum += bytes[i];
  }
  return sum;
}

TEST_F(Safetensors, MutatedFilesAreReadOrRefusedButNeverCrash) {
  const std::string good =
      encode(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
             R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}})",
             std::string(24, '\1'));
  int read = 0, refused = 0;
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    std::mt19937_64 random(seed);
    SCOPED_TRACE(seed);
    fs::remove(file());  // a new file is not flushed to the disk, an emptied one may be
    write("a.safetensors", mutate(good, random));
    try {
      read_everything(SafetensorsReader::open(file()));
      ++read;
    } catch (const UserError& error) {
      ASSERT_EQ(error.where(), file().string());
      ++refused;
    }
  }
  EXPECT_GT(read, 20);  // both ways are taken
  EXPECT_GT(refused, 2000);
}

TEST_F(Safetensors, RealModelsAreRead) {
  TESSERA_NEEDS_SHARED_DATA();
  const SafetensorsReader reader = SafetensorsReader::open_folder(test::shared_data() / "models" / "stories260K");
  EXPECT_EQ(reader.at("model.norm.weight").shape, Shape({64}));
  EXPECT_EQ(reader.at("model.embed_tokens.weight").shape, Shape({512, 64}));
  EXPECT_EQ(reader.metadata().count("format"), 1u);
}

}  // namespace
}  // namespace tessera
