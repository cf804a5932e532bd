// Documents by themselves: each piece of one in a row of its own.

#include <gmock/gmock.h>

#include "data/packed_dataset.h"

namespace tessera {
namespace {

/// Documents of these lengths; token i of document d is 100 d + i. The third has nothing that is scored.
TokenData documents(const std::vector<int64_t>& lengths) {
  TokenData data;
  for (size_t d = 0; d < lengths.size(); ++d) {
    for (int64_t i = 0; i < lengths[d]; ++i) {
      data.tokens.push_back(static_cast<int32_t>(100 * d) + static_cast<int32_t>(i));
      data.scored.push_back(d != 2 && i > 0 ? 1 : 0);
    }
    data.ends.push_back(static_cast<int64_t>(data.tokens.size()));
  }
  data.hash = "drawn";
  return data;
}

TEST(PiecesOfDocuments, AreAllThatIsScoredOnceAndNothingElse) {
  const PackedDataset dataset(documents({5, 21, 6, 8, 2, 30}), 8, 3);
  const auto pieces = dataset.pieces_by_document();
  ASSERT_EQ(pieces.size(), 6u);
  EXPECT_TRUE(pieces[2].empty()) << "nothing of it is scored";
  int64_t scored = 0;
  for (size_t d = 0; d < pieces.size(); ++d)
    for (const int64_t rows : {1, 2, 100}) {
      std::vector<int32_t> text;
      for (const PackedBatch& batch : dataset.batches_of_pieces(pieces[d], rows)) {
        EXPECT_LE(batch.rows, rows);
        EXPECT_EQ(batch.documents.size(), static_cast<size_t>(batch.rows)) << "one piece a row";
        for (const TokenRange& range : batch.documents) {
          EXPECT_EQ(range.document, static_cast<int64_t>(d));
          EXPECT_EQ(range.begin % 8, 0);
          for (int64_t i = range.begin; i < range.end; ++i) text.push_back(batch.ids[static_cast<size_t>(i)]);
        }
        if (rows == 1) scored += batch.scored();
      }
      for (size_t i = 0; i < text.size(); ++i)
        EXPECT_EQ(text[i], static_cast<int32_t>(100 * d + i)) << "in the order of the text";
    }
  EXPECT_EQ(scored, dataset.scored_tokens());
}

}  // namespace
}  // namespace tessera
