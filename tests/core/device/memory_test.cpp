#include "core/device/memory.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/arena.h"
#include "core/error.h"
#include "core/storage.h"

namespace tessera {
namespace {

constexpr Device kFar{.kind = Device::Kind::far, .index = 0};

Tensor counted(Shape shape) {
  Tensor tensor(shape, DType::f32);
  std::iota(tensor.as<float>().begin(), tensor.as<float>().end(), 1.0f);
  return tensor;
}

bool same(const ConstView& there, const Tensor& host) {
  const Tensor found = download(there);
  return std::ranges::equal(found.as<float>(), host.as<float>());
}

TEST(FarDevice, KeepsWhatIsCopiedThereAndBack) {
  const Tensor host = counted({3, 5});
  const Tensor there({3, 5}, DType::f32, kFar);
  copy(host.view(), there);
  EXPECT_TRUE(same(there.view(), host));
  const Tensor beside({3, 5}, DType::f32, kFar);
  copy(there.view(), beside);
  zero(there);
  EXPECT_TRUE(same(beside.view(), host));
  EXPECT_TRUE(same(there.view(), Tensor({3, 5}, DType::f32)));
}

TEST(FarDevice, CopiesAndClearsStridedRows) {
  const Tensor host = counted({4, 6}), there({4, 6}, DType::f32, kFar);
  copy(host.view().slice_cols(1, 4), there.view().slice_cols(2, 5));
  zero(there.view().slice_rows(1, 2).slice_cols(2, 4));
  const Tensor found = download(there.view());
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t c = 0; c < 6; ++c) {
      const bool is_copied = c >= 2 && c < 5, is_cleared = r == 1 && c < 4;
      EXPECT_EQ(found.view().row<float>(r)[c], is_copied && !is_cleared ? host.view().row<float>(r)[c - 1] : 0.0f);
    }
}

TEST(FarDevice, CountsWhatCrosses) {
  const Tensor host = counted({2, 3}), there({2, 3}, DType::f32, kFar), beside({2, 3}, DType::f32, kFar);
  const Transfers before = transfers();
  copy(host.view(), there);
  copy(there.view(), beside);  // on the device
  const Tensor again = counted({2, 3});
  copy(host.view(), again);
  download(beside.view().slice_rows(0, 1));
  const Transfers after = transfers();
  EXPECT_EQ(after.uploads - before.uploads, 1);
  EXPECT_EQ(after.uploaded_bytes - before.uploaded_bytes, 24);
  EXPECT_EQ(after.downloads - before.downloads, 1);
  EXPECT_EQ(after.downloaded_bytes - before.downloaded_bytes, 12);
}

TEST(FarDevice, WhatTheHostWritesWholeIsNotBroughtDown) {
  const Tensor there = upload(counted({2, 3}).view(), kFar);
  const Transfers before = transfers();
  {
    const WrittenOnHost written(there);
    EXPECT_TRUE(std::ranges::equal(written.as<float>(), std::vector<float>(6, 0)));
    std::iota(written.as<float>().begin(), written.as<float>().end(), 7.0f);
  }
  const Transfers after = transfers();
  EXPECT_EQ(after.downloads, before.downloads);
  EXPECT_EQ(after.uploads - before.uploads, 1);
  EXPECT_EQ(after.uploaded_bytes - before.uploaded_bytes, 24);
  EXPECT_EQ(download(there.view()).as<float>()[5], 12);
}

TEST(FarDevice, WhatTheHostEditsComesDownAndGoesBack) {
  const Tensor there = upload(counted({2, 3}).view(), kFar);
  const Transfers before = transfers();
  {
    const EditedOnHost edited(there);
    edited.as<float>()[0] += 10;
  }
  const Transfers after = transfers();
  EXPECT_EQ(after.downloads - before.downloads, 1);
  EXPECT_EQ(after.uploads - before.uploads, 1);
  const Tensor found = download(there.view());
  EXPECT_EQ(found.as<float>()[0], 11);
  EXPECT_EQ(found.as<float>()[5], 6);
}

TEST(CpuDevice, TheHostWritesInPlace) {
  const Tensor here = counted({2, 3});
  const WrittenOnHost written(here);
  EXPECT_EQ(written.as<float>().data(), here.as<float>().data());
  EXPECT_EQ(written.as<float>()[5], 6);
}

TEST(FarDevice, RefusesHostReads) {
  const Tensor there({2, 3}, DType::f32, kFar);
  EXPECT_THROW(there.as<float>(), InternalError);
  EXPECT_THROW(element(there.view(), 0), InternalError);
  EXPECT_THROW(set_element(there.view(), 0, 1), InternalError);
}

TEST(FarDeviceDeathTest, HostReadsThatNobodyCheckedEndTheProgram) {
  const Tensor there({2, 3}, DType::f32, kFar);
  EXPECT_DEATH({ std::exit(static_cast<int>(there.view().row<float>(0)[0])); }, "");
}

TEST(FarDevice, ArenasAndStoragesHandOutItsMemory) {
  Arena arena(4096, kFar);
  EXPECT_EQ(arena.allocate({4}, DType::f32).device, kFar);
  Storage storage(Memory::held, kFar);
  EXPECT_EQ(storage.allocate({4}, DType::f32).device, kFar);
  const Tensor there({4}, DType::f32, kFar);
  EXPECT_EQ(there.view().slice_rows(1, 3).reshape({2, 1}).device, kFar);
}

}  // namespace
}  // namespace tessera
