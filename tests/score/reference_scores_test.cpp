#include <gtest/gtest.h>

#include <numeric>

#include "core/json.h"
#include "data/tokenizer.h"
#include "io/files.h"
#include "score/forward.h"
#include "support/engine.h"

namespace tessera {
namespace {

using test::Engine;

/// A text read as one document, of which every token but the first is scored.
PackedBatch one_document(const std::vector<int32_t>& ids) {
  PackedBatch batch;
  batch.rows = 1;
  batch.sequence_length = static_cast<int64_t>(ids.size());
  batch.ids = ids;
  batch.positions.resize(ids.size());
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.draw_index.assign(batch.positions.begin(), batch.positions.end());
  batch.labels.assign(ids.begin() + 1, ids.end());
  batch.labels.push_back(-1);
  batch.documents.push_back({0, batch.sequence_length});
  return batch;
}

/// JSON records of the first `limit` lines.
std::vector<Json> read_records(const std::filesystem::path& file, size_t limit) {
  const std::string content = read_text_file(file);
  std::vector<Json> records;
  for (size_t at = 0; at < content.size() && records.size() < limit;) {
    const size_t end = std::min(content.find('\n', at), content.size());
    records.push_back(Json::parse(std::string_view(content).substr(at, end - at), file.string()));
    at = end + 1;
  }
  return records;
}

class StoriesScores : public testing::Test {
 protected:
  void SetUp() override {
    TESSERA_NEEDS_SHARED_DATA();
    const auto folder = test::shared_data() / "models" / "stories260K";
    tokenizer_.emplace(Tokenizer::load(folder));
    model_ = test::load_model(folder, 512);
    reference_ = Json::parse(read_text_file(folder / "reference_scores.json"), "reference_scores.json");
  }
  std::vector<int32_t> ids_of(const std::string& text) const {
    std::vector<int32_t> ids = {*tokenizer_->bos()};
    for (const int32_t id : tokenizer_->encode(text)) ids.push_back(id);
    if (ids.size() > 512) ids.resize(512);
    return ids;
  }
  double nll(const std::string& text) { return score_batch(engine_.ctx, *model_, one_document(ids_of(text)))["nll"]; }

  Engine engine_;
  std::optional<Tokenizer> tokenizer_;
  std::unique_ptr<Model> model_;
  Json reference_;
};

TEST_F(StoriesScores, OfStoriesMatchTheReference) {
  const auto& stories = reference_.at("tinystories_jsonl_first60").at("stories").items();
  const auto records = read_records(test::shared_data() / "datasets" / "corpora" / "tinystories.jsonl", stories.size());
  ASSERT_EQ(records.size(), 60u);
  for (size_t i = 0; i < records.size(); ++i) {
    const double expected = stories[i].at("nll_sum").as_number();
    const std::string& text = records[i].at("text").as_string();
    EXPECT_EQ(static_cast<int64_t>(ids_of(text).size()), stories[i].at("tokens").as_integer() + 1) << "story " << i;
    EXPECT_NEAR(nll(text), expected, 1e-4 * expected) << "story " << i;
  }
}

TEST_F(StoriesScores, OfMinimalPairsMatchTheReference) {
  const auto& pairs = reference_.at("blimp_first300_every_100th_line").at("pairs").items();
  const auto records = read_records(test::shared_data() / "datasets" / "eval" / "blimp_first300.jsonl", 1 << 20);
  int64_t right = 0;
  for (const Json& pair : pairs) {
    const Json& record = records.at(static_cast<size_t>(pair.at("line").as_integer()));
    ASSERT_EQ(record.at("UID").as_string(), pair.at("UID").as_string());
    const double good = -nll(record.at("sentence_good").as_string()), bad = -nll(record.at("sentence_bad").as_string());
    EXPECT_NEAR(good, pair.at("logp_good").as_number(), 1e-4 * std::abs(good));
    EXPECT_NEAR(bad, pair.at("logp_bad").as_number(), 1e-4 * std::abs(bad));
    right += good > bad;
  }
  const double accuracy = static_cast<double>(right) / static_cast<double>(pairs.size());
  EXPECT_NEAR(accuracy, reference_.at("blimp_first300_every_100th_line").at("accuracy").as_number(), 1e-12);
}

}  // namespace
}  // namespace tessera
