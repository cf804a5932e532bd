#include "io/hdf5_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <ctime>
#include <fstream>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "io/files.h"
#include "support/error_text.h"
#include "support/paths.h"

// Asked by the address sanitizer. Where closing a file fails, as the tests of full disks make it, the library loses two
// small objects of its own.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::error_text;

class Hdf5 : public ::testing::Test {
 protected:
  fs::path file() const { return folder_ / "a.h5"; }
  std::string named(const std::string& text) const { return file().string() + ": " + text; }

  /// A sealed file with a few of everything.
  void write_sample(const fs::path& path) const {
    const std::vector<float> matrix = {1, 2, 3, 4, 5, 6};
    const std::vector<int32_t> tokens = {10, 11, 12, 13, 14};
    Hdf5File out = Hdf5File::create(path);
    out.write("/pool/q", view_of(std::span(matrix), {2, 3}));
    out.write("/tokens", view_of(std::span(tokens), {5}));
    out.write_text("/meta/recipe", "rank = 8\n");
    out.write_integer("/meta/step", 7);
    out.seal();
  }

  std::string open_fault(const std::string& bytes) {
    test::write_file(file(), bytes);
    return error_text([&] { Hdf5File::open(file()); });
  }

  test::TemporaryFolder folder_;
};

constexpr const char* kHint = "\n  take another copy, or make the file again";

TEST_F(Hdf5, EveryDTypeComesBackAsItWasWritten) {
  const std::vector<double> f64 = {0.1, -2};
  const std::vector<float> f32 = {1, 2, 3, 4, 5, 6};
  const std::vector<BFloat16> bf16 = {to_bfloat16(1.5f)};
  const std::vector<Float16> f16 = {to_float16(-0.25f), to_float16(2)};
  const std::vector<int64_t> i64 = {int64_t{1} << 40};
  const std::vector<int32_t> i32 = {-7, 8, 9};
  const std::vector<int8_t> i8 = {-1};
  const std::vector<uint8_t> u8 = {255, 0, 1};
  const std::vector<std::pair<std::string, ConstView>> all = {{"f64", view_of(std::span(f64), {2})},
                                                              {"f32", view_of(std::span(f32), {1, 2, 3, 1})},
                                                              {"bf16", view_of(std::span(bf16), {})},
                                                              {"f16", view_of(std::span(f16), {2, 1})},
                                                              {"i64", view_of(std::span(i64), {1})},
                                                              {"i32", view_of(std::span(i32), {3})},
                                                              {"i8", view_of(std::span(i8), {1, 1})},
                                                              {"u8", view_of(std::span(u8), {3})},
                                                              {"none", ConstView(nullptr, {0, 4}, DType::bf16)}};
  {
    Hdf5File out = Hdf5File::create(file());
    for (const auto& [name, view] : all) out.write("/all/" + name, view);
    out.seal();
  }
  const Hdf5File in = Hdf5File::open(file());
  for (const auto& [name, view] : all) {
    SCOPED_TRACE(name);
    EXPECT_EQ(in.shape_of("/all/" + name), view.shape);
    EXPECT_EQ(in.dtype_of("/all/" + name), view.dtype);
    const Tensor back = in.read("/all/" + name);
    EXPECT_EQ(back.shape(), view.shape);
    EXPECT_EQ(back.dtype(), view.dtype);
    const auto bytes = static_cast<size_t>(view.bytes());
    EXPECT_TRUE(bytes == 0 || std::memcmp(back.view().data, view.data, bytes) == 0);
  }
}

TEST_F(Hdf5, TextsAndNumbersComeBack) {
  const std::string with_zeros("a\0b\0", 4), large(100000, 'x');
  {
    Hdf5File out = Hdf5File::create(file());
    out.write_text("/empty", "");
    out.write_text("/text", "caf\xc3\xa9\n");
    out.write_text("/zeros", with_zeros);
    out.write_text("/large", large);
    out.write_integer("/integer", INT64_MIN);
    out.write_number("/number", 0.1);
    out.seal();
  }
  const Hdf5File in = Hdf5File::open(file());
  EXPECT_EQ(in.read_text("/empty"), "");
  EXPECT_EQ(in.read_text("/text"), "caf\xc3\xa9\n");
  EXPECT_EQ(in.read_text("/zeros"), with_zeros);
  EXPECT_EQ(in.read_text("/large"), large);
  EXPECT_EQ(in.read_integer("/integer"), INT64_MIN);
  EXPECT_EQ(in.read_number("/number"), 0.1);
}

TEST_F(Hdf5, GroupsAreListedInOrder) {
  {
    Hdf5File out = Hdf5File::create(file());
    for (const char* name : {"/g/z", "/g/a", "/g/deep/er/x", "/b"}) out.write_integer(name, 1);
    out.seal();
  }
  const Hdf5File in = Hdf5File::open(file());
  EXPECT_EQ(in.list("/"), (std::vector<std::string>{"b", "g"}));
  EXPECT_EQ(in.list("/g"), (std::vector<std::string>{"a", "deep", "z"}));
  EXPECT_TRUE(in.contains("/"));
  EXPECT_TRUE(in.contains("/g/deep/er/x"));
  EXPECT_TRUE(in.contains("g/deep"));
  EXPECT_FALSE(in.contains("/g/no/such"));
  EXPECT_FALSE(in.contains("/b/below a dataset"));
  EXPECT_EQ(error_text([&] { in.list("/none"); }), named("group \"/none\" is missing"));
  EXPECT_EQ(error_text([&] { in.list("/b"); }), named("\"/b\" is not a group"));
}

TEST_F(Hdf5, RangesOfAVectorAreReadAlone) {
  std::vector<int32_t> tokens(1000);
  std::iota(tokens.begin(), tokens.end(), 0);
  {
    Hdf5File out = Hdf5File::create(file());
    out.write("/tokens", view_of(std::span(tokens), {1000}));
    out.seal();
  }
  const Hdf5File in = Hdf5File::open(file(), /*verify_seal=*/false);
  const Tensor part({10}, DType::i32), matrix({2, 3}, DType::i32), none({0}, DType::i32);
  in.read_range("/tokens", 990, part);
  EXPECT_EQ(part.as<int32_t>()[0], 990);
  EXPECT_EQ(part.as<int32_t>()[9], 999);
  in.read_range("/tokens", 17, matrix);
  EXPECT_EQ(matrix.as<int32_t>()[5], 22);
  EXPECT_NO_THROW(in.read_range("/tokens", 1000, none));
  EXPECT_EQ(error_text([&] { in.read_range("/tokens", 991, part); }),
            named("dataset \"/tokens\" holds i32 [1000], expected elements 991 to 1001 of i32"));
  EXPECT_EQ(error_text([&] { in.read_range("/tokens", -1, part); }),
            named("dataset \"/tokens\" holds i32 [1000], expected elements -1 to 9 of i32"));
  EXPECT_EQ(error_text([&] { in.read_range("/tokens", 0, Tensor({2}, DType::f32)); }),
            named("dataset \"/tokens\" holds i32 [1000], expected elements 0 to 2 of f32"));
}

TEST_F(Hdf5, ThreadsReadOneFileAndWriteTheirOwn) {
  std::vector<int32_t> tokens(1000);
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto write = [&](const fs::path& path) {
    Hdf5File out = Hdf5File::create(path);
    out.write("/tokens", view_of(std::span(tokens), {1000}));
    out.seal();
  };
  write(file());
  const Hdf5File in = Hdf5File::open(file());
  std::vector<int> faults(4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      const Tensor part({10}, DType::i32);
      for (int64_t i = 0; i < 200; ++i) {
        in.read_range("/tokens", i, part);
        if (part.as<int32_t>()[9] != i + 9) ++faults[t];
      }
      write(folder_ / ("own" + std::to_string(t)));
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(faults, std::vector<int>(4));
  for (int t = 0; t < 4; ++t)
    EXPECT_EQ(Hdf5File::seal_of(folder_ / ("own" + std::to_string(t))), Hdf5File::seal_of(file()));
}

TEST_F(Hdf5, ReadingWhatIsNotThereSaysWhatIs) {
  write_sample(file());
  const Hdf5File in = Hdf5File::open(file());
  EXPECT_EQ(error_text([&] { in.read("/pool/k"); }), named("dataset \"/pool/k\" is missing"));
  EXPECT_EQ(error_text([&] { in.read("/pool"); }), named("dataset \"/pool\" is not a dataset"));
  EXPECT_EQ(error_text([&] {
              in.read("/pool/q", Tensor({3, 2}, DType::f32));
            }),
            named("dataset \"/pool/q\" holds f32 [2, 3], expected f32 [3, 2]"));
  EXPECT_EQ(error_text([&] {
              in.read("/pool/q", Tensor({2, 3}, DType::bf16));
            }),
            named("dataset \"/pool/q\" holds f32 [2, 3], expected bf16 [2, 3]"));
  EXPECT_EQ(error_text([&] { in.read_number("/meta/step"); }),
            named("dataset \"/meta/step\" holds i64 [], expected f64 []"));
  EXPECT_EQ(error_text([&] { in.read_integer("/tokens"); }),
            named("dataset \"/tokens\" holds i32 [5], expected i64 []"));
  EXPECT_EQ(error_text([&] { in.read_text("/tokens"); }), named("dataset \"/tokens\" is not text"));
  EXPECT_EQ(error_text([&] { in.read("/meta/recipe"); }),
            named("dataset \"/meta/recipe\" has a type that this program does not write"));
}

TEST_F(Hdf5, EqualContentsGiveEqualBytesWithoutTimes) {
  const std::time_t begin = std::time(nullptr);
  write_sample(file());
  write_sample(folder_ / "b.h5");
  const std::time_t end = std::time(nullptr);
  const std::string bytes = test::read_file(file());
  EXPECT_EQ(bytes, test::read_file(folder_ / "b.h5"));
  for (std::time_t now = begin; now <= end; ++now) {
    const auto seconds = static_cast<uint32_t>(now);  // as HDF5 stores times
    EXPECT_EQ(bytes.find(std::string(reinterpret_cast<const char*>(&seconds), 4)), std::string::npos);
  }
}

TEST_F(Hdf5, TheSealIsTheHashOfWhatFollowsIt) {
  write_sample(file());
  const std::string bytes = test::read_file(file());
  EXPECT_EQ(Hdf5File::seal_of(file()), sha256_hex(std::string_view(bytes).substr(512)));
  EXPECT_EQ(bytes.find("tessera sealed file, version 1\nsha256 " + Hdf5File::seal_of(file()) + "\nbytes " +
                       std::to_string(bytes.size()) + "\n"),
            0u);
}

TEST_F(Hdf5, AFlippedBitAnywhereIsRefused) {
  write_sample(file());
  const std::string bytes = test::read_file(file());
  std::fstream in_place(file(), std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](size_t i, int byte) {
    in_place.seekp(static_cast<std::streamoff>(i)).put(static_cast<char>(byte)).flush();
  };
  for (size_t i = 0; i < bytes.size(); ++i) {
    put(i, bytes[i] ^ (1 << i % 8));
    const std::string fault = error_text([&] { Hdf5File::open(file()); });
    ASSERT_EQ(fault.find(named("")), 0u) << "byte " << i << ": " << fault;
    const bool names_the_contents = fault == named("does not match its seal: the file was altered or damaged") + kHint;
    ASSERT_TRUE(names_the_contents || i < 512) << "byte " << i << ": " << fault;
    put(i, bytes[i]);
  }
  EXPECT_NO_THROW(Hdf5File::open(file()));
}

TEST_F(Hdf5, ALongerFileIsRefused) {
  write_sample(file());
  const std::string whole = test::read_file(file());
  EXPECT_EQ(open_fault(whole + "x"),
            named(fmt::format("has {} bytes, its seal says {}", whole.size() + 1, whole.size())) + kHint);
}

TEST_F(Hdf5, AFileCutShortAnywhereIsRefusedEvenUnverified) {
  write_sample(file());
  const uintmax_t whole = fs::file_size(file());
  for (uintmax_t bytes = whole - 1; bytes > 0; --bytes) {
    fs::resize_file(file(), bytes);
    const std::string fault = error_text([&] { Hdf5File::open(file(), /*verify_seal=*/false); });
    if (bytes >= 512) {
      ASSERT_EQ(fault, named(fmt::format("has {} bytes, its seal says {}", bytes, whole)) + kHint);
    } else if (bytes > 100) {
      ASSERT_EQ(fault, named(fmt::format("has {} bytes, fewer than its seal: it was cut short", bytes)) + kHint);
    } else {
      ASSERT_NE(fault, "nothing was thrown");
    }
  }
}

TEST_F(Hdf5, WhatIsNotASealedFileIsNamed) {
  EXPECT_EQ(error_text([&] { Hdf5File::open(file()); }), named("cannot be opened: No such file or directory"));
  EXPECT_EQ(open_fault(""), named("not an HDF5 file"));
  EXPECT_EQ(open_fault(std::string(5000, 'x')), named("not an HDF5 file"));
  const std::string unsealed = named("not sealed: its writing was interrupted, or another program made it") + kHint;
  EXPECT_EQ(open_fault("\x89HDF\r\n\x1a\n and so on"), unsealed);
  {
    Hdf5File out = Hdf5File::create(file());
    out.write_integer("/x", 1);
  }
  EXPECT_EQ(error_text([&] { Hdf5File::open(file()); }), unsealed);
  EXPECT_EQ(error_text([&] { Hdf5File::seal_of(file()); }), unsealed);
}

TEST_F(Hdf5, CreatingReplacesAnOldFile) {
  write_sample(file());
  {
    Hdf5File out = Hdf5File::create(file());
    out.write_integer("/x", 1);
    out.seal();
  }
  EXPECT_EQ(Hdf5File::open(file()).list("/"), std::vector<std::string>{"x"});
}

TEST_F(Hdf5, AFileThatCannotBeCreatedIsNamed) {
  const fs::path path = folder_ / "no/such/a.h5";
  EXPECT_EQ(error_text([&] { Hdf5File::create(path); }),
            path.string() + ": cannot be created: No such file or directory");
}

TEST_F(Hdf5, ADiskThatFillsUpIsNamedAndTheProgramGoesOn) {
  const std::vector<float> large(100000);
  const auto write_large = [&](const fs::path& path) {
    Hdf5File out = Hdf5File::create(path);
    out.write("/x", view_of(std::span(large), {100000}));
    out.seal();
  };
  write_sample(file());
  {
    const test::FileSizeLimit limit(50000);
    const std::string fault = error_text([&] { write_file_atomically(file(), write_large); });
    EXPECT_EQ(fault, named("dataset \"/x\" cannot be written: " + test::kFileTooLarge));
  }
  EXPECT_EQ(Hdf5File::open(file()).read_integer("/meta/step"), 7);
  write_file_atomically(file(), write_large);
  EXPECT_EQ(Hdf5File::open(file()).shape_of("/x"), Shape({100000}));
}

TEST_F(Hdf5, ADiskThatFillsUpAtTheVeryEndIsNamedToo) {
  const auto write = [](const fs::path& path) {
    Hdf5File out = Hdf5File::create(path);
    out.write_integer("/x", 1);
    out.seal();
  };
  for (rlim_t bytes : {600, 1000, 2000, 2500}) {
    const test::FileSizeLimit limit(bytes);
    const std::string verb = bytes == 600 ? "created" : "written";  // the superblock is written at once
    EXPECT_EQ(error_text([&] { write_file_atomically(file(), write); }),
              named("cannot be " + verb + ": " + test::kFileTooLarge));
    EXPECT_FALSE(fs::exists(file()));
  }
  write_file_atomically(file(), write);
  EXPECT_EQ(Hdf5File::open(file()).read_integer("/x"), 1);
}

TEST_F(Hdf5, WritingAPathTwiceOrAfterTheSealIsOurMistake) {
  Hdf5File out = Hdf5File::create(file());
  out.write_integer("/x", 1);
  EXPECT_THROW(out.write_integer("/x", 2), InternalError);
  EXPECT_THROW(out.write("/y", Tensor({4, 4}, DType::f32).view().slice_cols(0, 2)), InternalError);
  out.seal();
  EXPECT_THROW(out.write_integer("/y", 2), InternalError);
  EXPECT_THROW(out.contains("/x"), InternalError);
  EXPECT_THROW(out.seal(), InternalError);
  Hdf5File in = Hdf5File::open(file());
  EXPECT_THROW(in.write_integer("/y", 2), InternalError);
  EXPECT_THROW(in.seal(), InternalError);
}

TEST_F(Hdf5, ErrorsOfTheLibraryAreNotPrinted) {
  write_sample(file());
  const Hdf5File in = Hdf5File::open(file());
  ::testing::internal::CaptureStderr();
  error_text([&] { in.read("/pool"); });
  error_text([&] { in.read_text("/tokens"); });
  in.contains("/tokens/below");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST_F(Hdf5, MovedFilesKeepTheirContents) {
  Hdf5File first = Hdf5File::create(file());
  first.write_integer("/x", 1);
  Hdf5File second = std::move(first);
  second.write_integer("/y", 2);
  second.seal();
  second = Hdf5File::open(file());
  EXPECT_EQ(second.read_integer("/y"), 2);
}

}  // namespace
}  // namespace tessera
