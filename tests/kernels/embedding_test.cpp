#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

std::vector<int32_t> some_ids(int64_t count, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < count; ++t)
    ids.push_back(static_cast<int32_t>(mix64(static_cast<uint64_t>(t)) % static_cast<uint64_t>(vocab)));
  return ids;
}

class EmbeddingOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(EmbeddingOnCpu);

TEST_P(EmbeddingOnCpu, HasTheBitsOfTheReferenceForEveryDtypeAndThread) {
  const On reference("reference");
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const int64_t dim : kLengths) {
      const auto ids = some_ids(60, 13);
      const Matrix table = Matrix::random(13, dim, dtype, 1, 1, 2), y(60, dim, DType::f32, 3),
                   want(60, dim, DType::f32);
      embedding(reference, table.view(), ids, want);
      for (const int threads : {1, 2, 3}) {
        embedding(On("cpu", threads), table.view(), ids, y);
        EXPECT_TRUE(y.equals_bitwise(want));
      }
      EXPECT_TRUE(y.is_padding_untouched());
    }
  }
}

TEST_P(EmbeddingOnCpu, BackwardAddsTokensInOrderWhateverTheThreads) {
  const On reference("reference");
  for (const int64_t dim : {1, 17, 300}) {
    const auto ids = some_ids(200, 13);
    const Matrix dy = Matrix::random(200, dim, DType::f32, 2, 1, 1),
                 start = Matrix::random(13, dim, DType::f32, 3, 1, 2), want = start.copy();
    embedding_backward(reference, ids, dy.view(), want);
    for (const int threads : {1, 2, 3}) {
      const Matrix dtable = start.copy();
      embedding_backward(On("cpu", threads), ids, dy.view(), dtable);
      EXPECT_TRUE(dtable.equals_bitwise(want)) << threads << " threads";
    }
  }
}

TEST(GradCheck, Embedding) {
  const On reference("reference");
  const std::vector<int32_t> ids{2, 0, 2, 2, 4};
  Matrix table = Matrix::random(5, 3, DType::f64, 1);
  const Matrix dy = Matrix::random(5, 3, DType::f64, 2), y(5, 3, DType::f64), dtable = Matrix::zeros(5, 3, DType::f64);
  embedding_backward(reference, ids, dy.view(), dtable);
  expect_gradient(table, dtable, [&] {
    embedding(reference, table.view(), ids, y);
    return dot(y, dy);
  });
}

TEST(Embedding, NamesAnIdBeyondTheVocabulary) {
  const std::vector<int32_t> ids{0, 5};
  const Matrix table = Matrix::random(5, 3, DType::f32, 1), y(2, 3, DType::f32);
  try {
    embedding(On("cpu"), table.view(), ids, y);
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("embedding: ids[1] is 5, expected 0 to 4"));
  }
}

}  // namespace
}  // namespace tessera::test
