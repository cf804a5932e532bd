#include "data/packed_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <set>

#include "core/error.h"
#include "core/random.h"

namespace tessera {
namespace {

using testing::Each;
using testing::ElementsAre;

/// Documents of the given lengths whose tokens are all different: token i of the data is i.
/// Everything but first tokens is scored.
TokenData numbered(const std::vector<int64_t>& lengths) {
  TokenData data;
  for (const int64_t length : lengths) {
    for (int64_t i = 0; i < length; ++i) data.scored.push_back(i > 0);
    data.ends.push_back(static_cast<int64_t>(data.scored.size()));
  }
  data.tokens.resize(data.scored.size());
  std::iota(data.tokens.begin(), data.tokens.end(), 0);
  data.hash = "numbered";
  return data;
}

std::vector<int64_t> random_lengths(uint64_t seed, int64_t documents, int64_t shortest, int64_t longest) {
  std::vector<int64_t> lengths;
  for (int64_t d = 0; d < documents; ++d)
    lengths.push_back(shortest + static_cast<int64_t>(draw_below(seed, static_cast<uint64_t>(d),
                                                                 static_cast<uint64_t>(longest - shortest + 1))));
  return lengths;
}

PackedBatch whole(const PackedDataset& dataset) {
  std::vector<int64_t> rows(static_cast<size_t>(dataset.rows()));
  std::iota(rows.begin(), rows.end(), 0);
  return dataset.batch(rows, 0);
}

std::vector<int64_t> sequence(const PackedDataset& dataset, int64_t begin, int64_t count) {
  std::vector<int64_t> rows;
  for (int64_t i = begin; i < begin + count; ++i) rows.push_back(dataset.shuffled_row(i));
  return rows;
}

struct Case {
  uint64_t seed;
  int64_t documents, shortest, longest, sequence_length;
};

class Packing : public testing::TestWithParam<Case> {
 protected:
  TokenData data_ =
      numbered(random_lengths(GetParam().seed, GetParam().documents, GetParam().shortest, GetParam().longest));
  PackedDataset dataset_{data_, GetParam().sequence_length, GetParam().seed};
};

TEST_P(Packing, KeepsEveryTokenOnceAndDropsOnlyPiecesOfOneToken) {
  const int64_t length = GetParam().sequence_length;
  std::multiset<int32_t> expected, found;
  int64_t begin = 0;
  for (const int64_t end : data_.ends) {
    const int64_t kept = (end - begin) % length == 1 ? end - 1 : end;
    for (int64_t i = begin; i < kept; ++i) expected.insert(static_cast<int32_t>(i));
    begin = end;
  }
  const PackedBatch batch = whole(dataset_);
  for (const TokenRange& range : batch.documents)
    for (int64_t i = range.begin; i < range.end; ++i) found.insert(batch.ids[i]);
  EXPECT_EQ(found, expected);
}

TEST_P(Packing, RangesAreApartInsideRowsAndHoldOnePieceOfOneDocument) {
  const int64_t length = GetParam().sequence_length;
  const PackedBatch batch = whole(dataset_);
  int64_t free_from = 0;
  for (const TokenRange& range : batch.documents) {
    ASSERT_GE(range.begin, free_from);
    ASSERT_GE(range.end - range.begin, 2);
    ASSERT_EQ(range.begin / length, (range.end - 1) / length);
    const auto document = [&](int32_t token) {
      return std::upper_bound(data_.ends.begin(), data_.ends.end(), token) - data_.ends.begin();
    };
    for (int64_t i = range.begin + 1; i < range.end; ++i) ASSERT_EQ(batch.ids[i], batch.ids[i - 1] + 1);
    ASSERT_EQ(document(batch.ids[range.begin]), document(batch.ids[range.end - 1]));
    free_from = range.end;
  }
}

TEST_P(Packing, PositionsRestartLabelsAreTheNextTokenOfThePieceAndPaddingIsNeverScored) {
  const PackedBatch batch = whole(dataset_);
  std::vector<int32_t> positions(batch.ids.size(), 0), labels(batch.ids.size(), -1), padding = batch.ids;
  for (const TokenRange& range : batch.documents)
    for (int64_t i = range.begin; i < range.end; ++i) {
      positions[i] = static_cast<int32_t>(i - range.begin);
      if (i + 1 < range.end) labels[i] = batch.ids[i + 1];
      padding[i] = 0;
    }
  EXPECT_EQ(batch.positions, positions);
  EXPECT_EQ(batch.labels, labels);
  EXPECT_THAT(padding, Each(0));
  EXPECT_EQ(batch.scored(), dataset_.scored_tokens());
}

TEST_P(Packing, IsTheSameForTheSameSeedAndAnotherForAnother) {
  const PackedBatch one = whole(dataset_),
                    again = whole(PackedDataset(data_, GetParam().sequence_length, GetParam().seed)),
                    other = whole(PackedDataset(data_, GetParam().sequence_length, GetParam().seed + 1));
  EXPECT_EQ(one.ids, again.ids);
  if (data_.documents() > 2) {
    EXPECT_NE(one.ids, other.ids);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Packing,
                         testing::Values(Case{1, 500, 1, 40, 128}, Case{2, 300, 1, 200, 32}, Case{3, 1, 2, 2, 16},
                                         Case{4, 40, 2, 5, 2}, Case{5, 7, 1000, 1000, 64}, Case{6, 1000, 10, 40, 128},
                                         Case{7, 50, 63, 66, 64}, Case{8, 200, 1, 3, 7}));

TEST(PackedDataset, FillsRowsOf128WithDocumentsOf10To40Tokens) {
  EXPECT_GT(PackedDataset(numbered(random_lengths(1, 10000, 10, 40)), 128, 7).fill(), 0.97);
  EXPECT_GT(PackedDataset(numbered(random_lengths(2, 300, 10, 40)), 128, 7).fill(), 0.95);
}

TEST(PackedDataset, FillCountsTokensOverPlaces) {
  EXPECT_DOUBLE_EQ(PackedDataset(numbered({6, 6}), 8, 1).fill(), 12.0 / 16);
}

TEST(PackedDataset, ScoresOnlyWhatTheMaskSays) {
  TokenData data = numbered({6});
  data.scored = {0, 0, 0, 1, 1, 1};
  const PackedDataset dataset(data, 8, 1);
  EXPECT_THAT(whole(dataset).labels, ElementsAre(-1, -1, 3, 4, 5, -1, -1, -1));
  EXPECT_EQ(dataset.scored_tokens(), 3);
}

TEST(PackedDataset, TheFirstTokenOfALaterPieceIsNeverATarget) {
  const PackedDataset dataset(numbered({7}), 4, 1);
  const PackedBatch batch = whole(dataset);
  EXPECT_THAT(batch.labels, ElementsAre(1, 2, 3, -1, 5, 6, -1, -1));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 2, 3, 0, 1, 2, 0));
  EXPECT_EQ(dataset.scored_tokens(), 5);
}

TEST(PackedDataset, RefusesDataThatCuttingLeavesWithoutTargets) {
  TokenData data = numbered({9});
  data.scored = {0, 0, 0, 0, 0, 0, 0, 0, 1};
  try {
    PackedDataset(data, 8, 1);
    FAIL() << "accepted";
  } catch (const UserError& error) {
    EXPECT_EQ(error.where(), "train.sequence_length");
    EXPECT_EQ(error.message(), "no scored token is left in pieces of 8 tokens");
  }
  EXPECT_THROW(PackedDataset(numbered({}), 8, 1), UserError);
}

/// Documents of `length` tokens whose last `scored` count.
TokenData completions(int64_t documents, int64_t length, int64_t scored) {
  TokenData data = numbered(std::vector<int64_t>(static_cast<size_t>(documents), length));
  for (size_t i = 0; i < data.scored.size(); ++i) data.scored[i] = static_cast<int64_t>(i) % length >= length - scored;
  return data;
}

TEST(PackedDataset, LeavesOutRowsWithoutAScoredTokenAndCountsThem) {
  TokenData data = completions(10, 20, 3);  // two rows each, and the targets are in the second
  const PackedDataset dataset(data, 10, 4);
  EXPECT_EQ(dataset.rows(), 10);
  EXPECT_EQ(dataset.rows_left_out(), 10);
  EXPECT_EQ(dataset.scored_tokens(), 30);
  for (int64_t row = 0; row < dataset.rows(); ++row) EXPECT_GT(dataset.batch({&row, 1}, 0).scored(), 0);
  const PackedDataset before(data, 10, 4, Rules::first);
  EXPECT_EQ(before.rows(), 20);
  EXPECT_EQ(before.rows_left_out(), 0);
  EXPECT_EQ(before.scored_tokens(), 30);
}

TEST(PackedDataset, RowsThatAreKeptStayWhatTheyWereWhereNoneIsLeftOut) {
  const TokenData data = numbered(random_lengths(9, 300, 2, 40));
  const PackedDataset dataset(data, 32, 4), before(data, 32, 4, Rules::first);
  EXPECT_EQ(dataset.rows_left_out(), 0);
  EXPECT_EQ(whole(dataset).ids, whole(before).ids);
  EXPECT_EQ(whole(dataset).labels, whole(before).labels);
}

TEST(PackedDataset, APieceKnowsItsDocumentAndHowManyPiecesOfItAreScored) {
  TokenData data = completions(4, 25, 18);  // pieces of 10, 10 and 5 tokens, of which all have targets
  data.has_prompt.assign(4, 1);
  data.has_prompt[2] = 0;
  const PackedDataset dataset(data, 10, 4);
  std::map<int64_t, int> found;
  for (const TokenRange& range : whole(dataset).documents) {
    ++found[range.document];
    EXPECT_EQ(range.pieces, 3);
    EXPECT_EQ(range.has_prompt, range.document != 2);
  }
  EXPECT_THAT(found, ElementsAre(testing::Pair(0, 3), testing::Pair(1, 3), testing::Pair(2, 3), testing::Pair(3, 3)));
  for (const TokenRange& range : whole(PackedDataset(completions(4, 25, 3), 10, 4)).documents)
    EXPECT_EQ(range.pieces, 1) << "only the last one has targets";
}

TEST(PackedDataset, EachEpochReadsEachRowOnceInItsOwnOrder) {
  const TokenData data = numbered(random_lengths(3, 800, 10, 40));
  const PackedDataset dataset(data, 64, 5);
  const int64_t rows = dataset.rows();
  std::vector<std::vector<int64_t>> epochs;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    epochs.push_back(sequence(dataset, epoch * rows, rows));
    std::vector<int64_t> sorted = epochs.back(), all(static_cast<size_t>(rows));
    std::sort(sorted.begin(), sorted.end());
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(sorted, all);
    EXPECT_NE(epochs.back(), all);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
  // A seed's order differs even over rows that are the same: here every row holds one document of full length.
  const TokenData full = numbered(std::vector<int64_t>(100, 16));
  EXPECT_NE(sequence(PackedDataset(full, 16, 1), 0, 100), sequence(PackedDataset(full, 16, 2), 0, 100));
}

TEST(PackedDataset, RanksTogetherReadTheGlobalBatchForAnyRankCount) {
  const PackedDataset dataset(numbered(random_lengths(4, 600, 5, 60)), 64, 9);
  for (const int64_t global_batch : {24, 5})
    for (const int64_t cursor : {int64_t{0}, dataset.rows() - 3}) {  // the second crosses an epoch's end
      const PackedBatch global = dataset.batch(step_rows(dataset, cursor, {0, global_batch}), cursor);
      for (const int ranks : {1, 2, 3, 7, 8}) {
        PackedBatch joined;
        for (int rank = 0; rank < ranks; ++rank) {
          const RowShare share = row_share(global_batch, {rank, ranks});
          const PackedBatch part = dataset.batch(step_rows(dataset, cursor, share), cursor + share.begin);
          const int64_t base = static_cast<int64_t>(joined.ids.size());
          joined.ids.insert(joined.ids.end(), part.ids.begin(), part.ids.end());
          joined.labels.insert(joined.labels.end(), part.labels.begin(), part.labels.end());
          joined.positions.insert(joined.positions.end(), part.positions.begin(), part.positions.end());
          joined.draw_index.insert(joined.draw_index.end(), part.draw_index.begin(), part.draw_index.end());
          for (const TokenRange& range : part.documents)
            joined.documents.push_back({range.begin + base, range.end + base});
        }
        EXPECT_EQ(joined.ids, global.ids) << ranks << " ranks";
        EXPECT_EQ(joined.labels, global.labels);
        EXPECT_EQ(joined.positions, global.positions);
        EXPECT_EQ(joined.draw_index, global.draw_index);
        ASSERT_EQ(joined.documents.size(), global.documents.size());
        for (size_t i = 0; i < global.documents.size(); ++i) {
          EXPECT_EQ(joined.documents[i].begin, global.documents[i].begin);
          EXPECT_EQ(joined.documents[i].end, global.documents[i].end);
        }
      }
    }
}

TEST(PackedDataset, RanksOfOneGroupReadTheSameRows) {
  const PackedDataset dataset(numbered(random_lengths(4, 600, 5, 60)), 64, 9);
  for (int index = 0; index < 3; ++index) {
    const RowShare first = row_share(24, {.index = index, .count = 3, .member = 0}),
                   second = row_share(24, {.index = index, .count = 3, .member = 1});
    EXPECT_EQ(step_rows(dataset, 7, first), step_rows(dataset, 7, second));
    EXPECT_EQ(first.end - first.begin, 8);
  }
}

TEST(PackedDataset, DrawIndicesCountTokensFromTheGlobalRow) {
  const PackedDataset dataset(numbered(random_lengths(5, 100, 5, 20)), 16, 9);
  const PackedBatch batch = dataset.batch(std::vector<int64_t>{3, 0}, 10);
  ASSERT_EQ(batch.draw_index.size(), 32u);
  for (int64_t i = 0; i < 32; ++i) EXPECT_EQ(batch.draw_index[i], 160 + i);
}

TEST(PackedDataset, ABatchOfNoRowsIsEmpty) {
  const PackedDataset dataset(numbered({5}), 8, 1);
  EXPECT_EQ(dataset.batch({}, 4).tokens(), 0);
}

TEST(RowShare, SharesAreContiguousAndDifferByOneRowAtMost) {
  for (const int64_t batch : {0, 1, 5, 8, 24, 100})
    for (const int ranks : {1, 2, 3, 7, 8}) {
      int64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const RowShare share = row_share(batch, {rank, ranks});
        EXPECT_EQ(share.begin, next);
        const int64_t rows = share.end - share.begin;
        EXPECT_TRUE(rows == batch / ranks || rows == batch / ranks + 1) << batch << " rows on " << ranks << " ranks";
        next = share.end;
      }
      EXPECT_EQ(next, batch);
    }
}

// A million documents take about 0.4 s; the bound leaves room for a busy machine and for sanitizers.
TEST(PackedDataset, PacksAMillionDocumentsQuickly) {
  TokenData data = numbered(random_lengths(6, 1000000, 10, 40));
  const auto start = std::chrono::steady_clock::now();
  const PackedDataset dataset(std::move(data), 512, 1);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  RecordProperty("seconds", std::to_string(seconds));
  EXPECT_LT(seconds, 10);
  EXPECT_GT(dataset.fill(), 0.99);
}

TEST(PackedDataset, CountsTheKeysThatTokensSee) {
  const PackedDataset dataset(numbered(random_lengths(5, 60, 2, 40)), 16, 1);  // some are cut
  const PackedBatch all = whole(dataset);
  for (const int64_t window : {0, 1, 5, 16}) {
    double keys = 0, tokens = 0;
    for (const TokenRange& range : all.documents)
      for (int64_t t = range.begin; t < range.end; ++t, ++tokens)
        keys += static_cast<double>(window == 0 ? t - range.begin + 1 : std::min(window, t - range.begin + 1));
    EXPECT_DOUBLE_EQ(dataset.mean_keys(window), keys / tokens) << window;
  }
}

}  // namespace
}  // namespace tessera
