#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

Matrix small_integers(int64_t rows, int64_t cols, DType dtype, uint64_t seed, int64_t padding = 0) {
  Matrix matrix = Matrix::random(rows, cols, dtype, seed, 9, padding);
  for (int64_t i = 0; i < rows * cols; ++i) matrix.set(i / cols, i % cols, std::round(matrix.at(i / cols, i % cols)));
  return matrix;
}

class ShardsOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(ShardsOnCpu);

TEST_P(ShardsOnCpu, GatherAndScatterHaveTheBitsOfTheReference) {
  const On reference("reference");
  for (const int64_t shard : {1, 3, 8, 17, 144}) {
    for (const int64_t shards : {1, 2, 5}) {
      const int64_t rows = 24;
      const auto index = draw_distinct(7, 150, rows * shards);
      const Matrix pool = Matrix::random(150, shard, DType::f32, 1, 1, 2), y(rows, shards * shard, DType::f32, 3);
      const Matrix want(rows, shards * shard, DType::f32), want_pool = pool.copy();
      gather_shards(reference, pool.view(), index, want);
      const Matrix dy = Matrix::random(rows, shards * shard, DType::f32, 2, 1, 1);
      scatter_shards_add(reference, index, dy.view(), want_pool);
      for (const int threads : {1, 2, 3}) {
        const On cpu("cpu", threads);
        gather_shards(cpu, pool.view(), index, y);
        EXPECT_TRUE(y.equals_bitwise(want));
        const Matrix dpool = pool.copy();
        scatter_shards_add(cpu, index, dy.view(), dpool);
        EXPECT_TRUE(dpool.equals_bitwise(want_pool));
        EXPECT_TRUE(dpool.is_padding_untouched());
      }
    }
  }
}

TEST(Shards, ScatterIsTheAdjointOfGatherExactly) {
  for (const char* backend : {"reference", "cpu"}) {
    const On on(backend);
    const auto index = draw_distinct(3, 40, 12);
    const Matrix pool = small_integers(40, 5, DType::f32, 1), v = small_integers(4, 15, DType::f32, 2);
    const Matrix y(4, 15, DType::f32), dpool = Matrix::zeros(40, 5, DType::f32);
    gather_shards(on, pool.view(), index, y);
    scatter_shards_add(on, index, v.view(), dpool);
    EXPECT_EQ(dot(y, v), dot(pool, dpool)) << backend;  // integers: no rounding
  }
}

TEST(Shards, GatherReadsShardsInIndexOrder) {
  Matrix pool(3, 2, DType::f32);
  for (int i = 0; i < 6; ++i) pool.set(i / 2, i % 2, i);
  const Matrix y(1, 4, DType::f32);
  const std::vector<int32_t> index{2, 0};
  gather_shards(On("cpu"), pool.view(), index, y);
  EXPECT_EQ(y.at(0, 0), 4);
  EXPECT_EQ(y.at(0, 1), 5);
  EXPECT_EQ(y.at(0, 2), 0);
  EXPECT_EQ(y.at(0, 3), 1);
}

TEST(Shards, RefuseVectorsThatAreNoWholeNumberOfShards) {
  const Matrix pool = Matrix::random(4, 3, DType::f32, 1), y(1, 7, DType::f32);
  const std::vector<int32_t> index{0, 1};
  EXPECT_THROW(gather_shards(On("cpu"), pool.view(), index, y), InternalError);
}

}  // namespace
}  // namespace tessera::test
