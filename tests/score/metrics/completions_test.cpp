// Completions are whole documents, into however many pieces, rows, batches and ranks they fall.

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "score/evaluate.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

/// Documents of a prompt and a completion of so many tokens. Token i of the data is i % vocabulary.
TokenData documents_of(int64_t documents, int64_t prompt, int64_t completion, int64_t vocabulary) {
  TokenData data;
  data.hash = "made up";
  for (int64_t d = 0; d < documents; ++d) {
    data.scored.resize(data.scored.size() + static_cast<size_t>(prompt), 0);
    data.scored.resize(data.scored.size() + static_cast<size_t>(completion), 1);
    data.ends.push_back(static_cast<int64_t>(data.scored.size()));
  }
  for (size_t i = 0; i < data.scored.size(); ++i)
    data.tokens.push_back(static_cast<int32_t>(static_cast<int64_t>(i) % vocabulary));
  return data;
}

/// What ranks find that err in tokens `wrong` and following of each document of so many tokens, and only there.
LossSums found(const PackedDataset& data, int64_t length, int64_t wrong, int ranks, int64_t rows) {
  LossSums all;
  for (int rank = 0; rank < ranks; ++rank) {
    const RowShare share = row_share(rows, {rank, ranks});
    for (int64_t row = share.begin; row < share.end; ++row) {
      const PackedBatch batch = data.batch({&row, 1}, 0);
      const ScoredRows scored = scored_rows(batch);
      std::vector<int32_t> best = scored.labels;
      for (int32_t& token : best)
        if (token % length >= wrong) token = -1;
      const std::vector<double> nll(best.size(), 1.0);
      all = sum_up(batch, scored, ConstView(nll.data(), {static_cast<int64_t>(nll.size())}, DType::f64), best,
                   std::move(all));
    }
  }
  all.count_cut_completions();
  return all;
}

constexpr int64_t kEach = 1 << 30;  // so large a vocabulary that tokens are numbers of places

TEST(Completions, AreRightWhenAllPiecesOfTheDocumentAre) {
  const int64_t length = 19;
  const TokenData data = documents_of(64, 4, 15, kEach);
  for (const int64_t row_length : {3, 4, 5, 10, 11, 16, 18, 19, 64})
    for (const int ranks : {1, 2, 3, 7}) {
      const PackedDataset dataset(data, row_length, 5);
      const LossSums wrong_end = found(dataset, length, length - 3, ranks, dataset.rows()),
                     right = found(dataset, length, length, ranks, dataset.rows());
      EXPECT_EQ(wrong_end["completions"], 64) << "rows of " << row_length << ", ranks " << ranks;
      EXPECT_EQ(wrong_end["exact"], 0) << "rows of " << row_length << ", ranks " << ranks;
      EXPECT_EQ(right["exact"], 64) << "rows of " << row_length << ", ranks " << ranks;
    }
}

TEST(Completions, OfDocumentsSomeOfWhosePiecesAreNotReadAreNotCounted) {
  const TokenData data = documents_of(6, 4, 26, kEach);
  const PackedDataset dataset(data, 10, 5);
  std::vector<int> read(6);
  for (int64_t row = 0; row < 8; ++row)
    ++read.at(static_cast<size_t>(dataset.batch({&row, 1}, 0).documents[0].document));
  EXPECT_EQ(found(dataset, 30, 30, 2, 8)["completions"], std::count(read.begin(), read.end(), 3));
}

TEST(Completions, OfPromptsOfOneTokenWithoutBosAreCountedAndTextsAreNot) {
  TokenData data = documents_of(10, 1, 7, kEach);
  for (size_t d = 0; d < 10; ++d) data.has_prompt.push_back(d >= 4);
  for (const int64_t row_length : {5, 8, 40}) {
    const PackedDataset dataset(data, row_length, 5);
    EXPECT_EQ(found(dataset, 8, 8, 1, dataset.rows())["completions"], 6) << row_length;
  }
  data.has_prompt.clear();
  EXPECT_EQ(found(PackedDataset(data, 40, 5), 8, 8, 1, 1)["completions"], 0) << "the marks do not tell";
}

TEST(Completions, OfTextsWithSeveralTokensInFrontAreNone) {
  TokenData data = documents_of(10, 2, 6, kEach);
  data.has_prompt.assign(10, 0);
  const PackedDataset dataset(data, 40, 5);
  EXPECT_EQ(found(dataset, 8, 8, 1, dataset.rows())["completions"], 0);
}

TEST(Completions, OfAnOldRunArePiecesThatBeginWithAPrompt) {
  const TokenData data = documents_of(64, 4, 15, kEach);
  const PackedDataset dataset(data, 16, 5, Rules::first);
  const LossSums sums = found(dataset, 19, 16, 2, dataset.rows());
  EXPECT_EQ(sums["completions"], 64);
  EXPECT_EQ(sums["exact"], 64);
}

TEST(Completions, AreThoseOfTheModelWhateverTheLengthOfTheBatches) {
  test::TemporaryFolder folder;
  test::OwnContext own;
  Model model(test::tiny_settings(folder.path()));
  const auto world = self_communicator();
  const PackedDataset dataset(documents_of(30, 3, 9, 23), 7, 3);
  for (const int64_t micro_batch : {1, 4, 100}) {
    const LossSums sums = evaluate(own.ctx, model, dataset, *world, {}, micro_batch);
    EXPECT_EQ(sums["completions"], 30);
    EXPECT_TRUE(sums.cut.empty());
  }
}

}  // namespace
}  // namespace tessera
