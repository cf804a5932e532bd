// Every view is one linear map and its adjoint:  <gather(p), v> == <p, scatter_add(v)>, exactly on small integers.

#include <gtest/gtest.h>

#include "model/sharing/mos.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

int64_t dot(const ConstView& a, const ConstView& b) {
  int64_t sum = 0;
  for (int64_t i = 0; i < a.shape.count(); ++i)
    sum += static_cast<int64_t>(element(a, i)) * static_cast<int64_t>(element(b, i));
  return sum;
}

void expect_adjoint(const WeightView& view, ParameterPool& pool, uint32_t seed) {
  for (const char* backend : {"reference", "cpu"}) {
    test::OwnContext own(backend);
    pool.zero_grads();
    test::fill_integers(pool.trainable().values, seed);
    Tensor w(view.shape(), DType::f32), v(view.shape(), DType::f32);
    test::fill_integers(v, seed + 1);
    view.gather(own.ctx, {&pool}, w);
    view.scatter_add(own.ctx, v.view(), pool);
    const int64_t forward = dot(w.view(), v.view());
    EXPECT_EQ(forward, dot(pool.trainable().values, pool.trainable().grads)) << backend;
    EXPECT_NE(forward, 0);
    view.scatter_add(own.ctx, v.view(), pool);  // adds, does not assign
    EXPECT_EQ(2 * forward, dot(pool.trainable().values, pool.trainable().grads)) << backend;
  }
}

TEST(Adjoint, OfAWholeSlot) {
  ParameterPool pool;
  const SlotId slot = pool.reserve("w", {.shape = {7, 13}, .init = {}});
  pool.allocate(0);
  expect_adjoint(SliceView(pool, slot, {7, 13}), pool, 1);
}

TEST(Adjoint, OfShardsUnderEveryDraw) {
  for (const MosDraw draw : {MosDraw::random, MosDraw::tied, MosDraw::pure})
    for (const int64_t l : {1, 2, 8}) {
      if (draw == MosDraw::pure && l > 1) continue;
      const MosShape shape =
          draw == MosDraw::pure
              ? MosShape{.layers = 4, .equivalent_rank = 3, .rank = 12, .private_rank = 0, .shards = 1}
              : MosShape{.layers = 4, .equivalent_rank = 3, .rank = 7, .private_rank = 1, .shards = l};
      ParameterPool pool;
      const int64_t width = 5;
      const SlotId slot = pool.reserve("shards", {.shape = {shape.rows(), width}, .init = {}});
      pool.allocate(0);
      for (int64_t layer = 0; layer < 4; ++layer)
        for (const int side : {0, 1})
          expect_adjoint(ShardView(slot, shape.rank, shape.shards, width, mos_table(shape, draw, 3, 1, side, layer)),
                         pool, static_cast<uint32_t>(10 * layer + side));
    }
}

TEST(Adjoint, GatherAndScatterThroughTheIdentityTableAreInverses) {
  test::OwnContext own;
  constexpr int64_t kLayers = 3, kRank = 2, kShards = 4, kWidth = 5;
  ParameterPool pool;
  const SlotId slot = pool.reserve("shards", {.shape = {kLayers * kRank * kShards, kWidth}, .init = {}});
  pool.allocate(0);
  test::fill_normal(pool.mutable_values(slot), 1, 1.0);
  for (int32_t k = 0; k < kLayers; ++k) {
    std::vector<int32_t> table;
    for (int32_t i = 0; i < kRank * kShards; ++i) table.push_back(k * kRank * kShards + i);
    const ShardView view(slot, kRank, kShards, kWidth, table);
    Tensor w(view.shape(), DType::f32);
    view.gather(own.ctx, {&pool}, w);
    const ConstView rows = pool.values(slot).slice_rows(k * kRank * kShards, (k + 1) * kRank * kShards);
    EXPECT_TRUE(test::same_bytes(w.view(), rows.reshape(view.shape())));
    view.scatter_add(own.ctx, w.view(), pool);
  }
  EXPECT_TRUE(test::same_bytes(pool.values(slot), pool.grads(slot)));
}

}  // namespace
}  // namespace tessera
