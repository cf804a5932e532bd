#include "core/arena.h"

#include <gtest/gtest.h>

#include <utility>

#include "core/error.h"

namespace tessera {
namespace {

TEST(Arena, AllocationsAreAlignedAndDoNotOverlap) {
  Arena arena(1024);
  const TensorView a = arena.allocate({3}, DType::u8), b = arena.allocate({5, 7}, DType::f32);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data) % 64, 0u);
  EXPECT_EQ(static_cast<const std::byte*>(b.data) - static_cast<const std::byte*>(a.data), 64);
  EXPECT_EQ(arena.used_bytes(), 64 + 192);
  EXPECT_EQ(b.shape, Shape({5, 7}));
}

TEST(Arena, AScopeReleasesWhatWasAllocatedInIt) {
  Arena arena(1024);
  arena.allocate({64}, DType::u8);
  const void* first = nullptr;
  {
    const Arena::Scope outer = arena.scope();
    first = arena.allocate({64}, DType::u8).data;
    {
      const Arena::Scope inner = arena.scope();
      arena.allocate({128}, DType::u8);
      EXPECT_EQ(arena.used_bytes(), 256);
    }
    EXPECT_EQ(arena.used_bytes(), 128);
  }
  EXPECT_EQ(arena.used_bytes(), 64);
  EXPECT_EQ(arena.peak_bytes(), 256);
  EXPECT_EQ(arena.allocate({64}, DType::u8).data, first);
}

TEST(Arena, AFullArenaIsAUserError) {
  Arena arena(128);
  arena.allocate({128}, DType::u8);
  try {
    arena.allocate({1}, DType::f32);
    FAIL() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_EQ(error.message(), "the activation arena of 0 MB is full: 64 more bytes were asked for");
  }
  EXPECT_EQ(arena.used_bytes(), 128);
}

TEST(Arena, CountingPlansWhatARealArenaUses) {
  const auto work = [](Arena& arena) {
    arena.allocate({100, 3}, DType::f32);
    {
      const Arena::Scope scope = arena.scope();
      arena.allocate({1000}, DType::bf16);
    }
    arena.allocate({7}, DType::f64);
    return arena.peak_bytes();
  };
  Arena plan = Arena::counting();
  EXPECT_TRUE(plan.is_counting());
  const int64_t planned = work(plan);
  Arena arena(planned);
  EXPECT_FALSE(arena.is_counting());
  EXPECT_EQ(work(arena), planned);
}

TEST(Arena, CountingTakesMoreThanAnyMachineHas) {
  Arena plan = Arena::counting();
  for (int i = 0; i < 4; ++i) EXPECT_NE(plan.allocate({int64_t{1} << 50}, DType::f32).data, nullptr);
  EXPECT_EQ(plan.peak_bytes(), int64_t{16} << 50);
}

TEST(Arena, MovingHandsTheBlockOver) {
  Arena from(256);
  const void* data = from.allocate({64}, DType::u8).data;
  Arena to(std::move(from));
  EXPECT_EQ(to.used_bytes(), 64);
  EXPECT_EQ(to.capacity_bytes(), 256);
  EXPECT_EQ(static_cast<const std::byte*>(to.allocate({64}, DType::u8).data), static_cast<const std::byte*>(data) + 64);
}

}  // namespace
}  // namespace tessera
