// Every view is one linear map and its adjoint:  <gather(p), v> == <p, scatter_add(v)>, exactly on small integers.

#include <gtest/gtest.h>

#include "core/error.h"
#include "model/sharing/cell_map.h"
#include "model/sharing/fold_view.h"
#include "model/sharing/mos.h"
#include "support/rps.h"

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

std::shared_ptr<const std::vector<FoldFactor>> shared_list(std::vector<FoldFactor> list) {
  return std::make_shared<const std::vector<FoldFactor>>(std::move(list));
}

/// Matrices one behind the other on `cells` cells, whose factors are `scale` up to the middle cell and twice that
/// behind it.
void expect_folds_adjoint(int64_t cells, const std::vector<FoldLayout>& layouts) {
  ParameterPool pool;
  const SlotId slot = pool.reserve("cells", {.shape = {cells}, .init = {}});
  pool.allocate(0);
  int64_t begin = 0;
  for (const FoldLayout& layout : layouts) {
    const auto factors =
        cells > 1 ? shared_list({{(cells + 1) / 2, 1}, {cells, 2}}) : shared_list({{cells, begin > 0 ? 4.0 : 1.0}});
    SCOPED_TRACE(fmt::format("[{}, {}] in tiles [{}, {}] from {} on {} cells", layout.rows, layout.cols,
                             layout.tile_rows, layout.tile_cols, begin, cells));
    expect_adjoint(FoldView(pool, slot, {FoldHash(17, cells), begin, layout}, factors), pool,
                   static_cast<uint32_t>(cells + begin));
    begin += layout.count();
  }
}

TEST(Adjoint, OfMatricesFoldedByRows) {
  const std::vector<FoldLayout> layouts{{7, 13}, {1, 37}, {64, 33}, {5, 1}};  // 91, 37, 2112 and 5 weights
  for (const int64_t cells : {2245, 2244, 1123, 211, 91, 90, 16, 7, 2})       // as many as weights, fewer, prime, few
    expect_folds_adjoint(cells, layouts);
}

TEST(Adjoint, OfMatricesFoldedByTiles) {
  const std::vector<FoldLayout> layouts{{.rows = 7, .cols = 13, .tile_rows = 4, .tile_cols = 8},  // cut on both sides
                                        {.rows = 40, .cols = 40, .tile_rows = 32, .tile_cols = 32},
                                        {.rows = 3, .cols = 5, .tile_rows = 8, .tile_cols = 8},  // larger than all
                                        {.rows = 16, .cols = 16, .tile_rows = 8, .tile_cols = 4}};
  for (const int64_t cells : {1962, 981, 127, 12}) expect_folds_adjoint(cells, layouts);
}

TEST(Adjoint, OfAMatrixOnASingleCell) { expect_folds_adjoint(1, {{9, 7}, {2, 4}}); }

TEST(Adjoint, OfOtherMappersAndTheirTiles) {
  for (const CellMapper mapper : {CellMapper::hashed, CellMapper::roast_tile}) {
    const FoldLayout first{.rows = 7, .cols = 13, .tile_rows = 4, .tile_cols = 4},
        second{.rows = 9, .cols = 30, .tile_rows = 4, .tile_cols = 4};
    const auto map =
        std::make_shared<CellMap>(plan_rps({{"a", first, 2}, {"b", second, 4}}, 83, 5), mapper, uint64_t{5}, false);
    int64_t readers = 0;
    double d = 0;
    for (const CellRun& cell : map->cells()) {
      readers += cell.readers;
      d += cell.d;
    }
    EXPECT_EQ(readers, 7 * 13 + 9 * 30);
    EXPECT_EQ(d, 7 * 13 * 4.0 + 9 * 30 * 16.0);
    ParameterPool pool;
    const SlotId slot = pool.reserve("cells", {.shape = {83}, .init = {}});
    pool.allocate(0);
    for (const size_t tensor : {0, 1}) expect_adjoint(MappedView(pool, slot, map, tensor), pool, 40);
    for (float& cell : pool.mutable_values(slot).as<float>()) cell = 1;
    const test::OwnContext own;
    const Tensor w = test::gathered(own.ctx, pool, MappedView(pool, slot, map, 1));
    for (int64_t p = 0; p < second.count();
         ++p)  // its numbers are beyond the cells: one sign a weight, whatever the mapper
      EXPECT_EQ(element(w.view(), second.element(p)), FoldHash(5, 83).negative(7 * 13 + p) ? -4 : 4);
  }
}

TEST(Adjoint, AnUncompressedFoldLiesInThePoolWithItsGradient) {
  ParameterPool pool;
  const SlotId slot = pool.reserve("cells", {.shape = {7 * 13 + 40}, .init = {}});
  pool.allocate(0);
  const FoldView view(pool, slot, {FoldHash(17, 131), 40, {7, 13}}, shared_list({{60, 1}, {131, 1}}));
  expect_adjoint(view, pool, 3);
  const test::OwnContext own;
  const Tensor w = test::gathered(own.ctx, pool, view);
  EXPECT_EQ(view.direct({&pool}).data, pool.values(slot).as<float>().data() + 40);
  EXPECT_TRUE(test::same_bytes(view.direct({&pool}), w.view()));
  const auto direct = view.direct_grad(pool);
  ASSERT_TRUE(direct);
  EXPECT_EQ(direct->data, pool.grads(slot).as<float>().data() + 40);
  EXPECT_EQ(direct->shape, view.shape());
  // Where a weight shares its cell, has a factor, or lies in tiles, it is not read in place.
  EXPECT_TRUE(FoldView(pool, slot, {FoldHash(17, 131), 41, {7, 13}}, shared_list({{131, 1}})).direct({&pool}).empty());
  EXPECT_TRUE(
      FoldView(pool, slot, {FoldHash(17, 131), 0, {7, 13}}, shared_list({{60, 1}, {131, 2}})).direct({&pool}).empty());
  EXPECT_FALSE(FoldView(pool, slot, {FoldHash(17, 131), 0, {7, 13, 2, 2}}, shared_list({{131, 1}})).direct_grad(pool));
}

/// A whole shared base at once: <all weights, all their gradients> == <cells, cells' gradients>,
/// D and its roots included.
TEST(Adjoint, OfASharedModelInDoubles) {
  for (const char* mapper : {"randomfold", "hashed", "roast-tile"})
    for (const char* layout : {"row", "tile"})
      for (const char* precond : {"D", "none"}) {
        SharingConfig config = test::rps(3.7);
        config.mapper = mapper;
        config.layout = layout;
        config.precond = precond;
        config.tile_rows = 4;
        config.tile_cols = 8;
        test::BoundBase base(config,
                             {test::matrix_spec("e", {23, 16}, test::normal(1), Role::embedding),
                              test::matrix_spec("a", {20, 16}, test::normal(0.02)),
                              test::matrix_spec("b", {16, 13}, test::uniform(0.3))},
                             3, {.trainable = true}, DType::f64);
        const test::OwnContext own("reference");
        double forward = 0, absolute = 0, backward = 0;
        for (size_t k = 0; k < base.views.size(); ++k) {
          const Tensor w = test::gathered(own.ctx, base.pool, *base.views[k]);
          Tensor v(w.shape(), DType::f64);
          test::fill_normal(v, static_cast<uint32_t>(k), 1);
          base.views[k]->scatter_add(own.ctx, v.view(), base.pool);
          for (int64_t i = 0; i < w.shape().count(); ++i) {
            forward += w.as<double>()[i] * v.as<double>()[i];
            absolute += std::abs(w.as<double>()[i] * v.as<double>()[i]);
          }
        }
        const auto values = base.pool.trainable().values.as<double>(), grads = base.pool.trainable().grads.as<double>();
        for (size_t j = 0; j < values.size(); ++j) backward += values[j] * grads[j];
        EXPECT_NEAR(forward, backward, 1e-13 * absolute) << mapper << " " << layout << " " << precond;
      }
}

}  // namespace
}  // namespace tessera
