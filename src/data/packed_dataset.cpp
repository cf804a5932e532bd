#include "data/packed_dataset.h"

#include <algorithm>

#include "core/error.h"
#include "core/random.h"

// Packing is first-fit: each piece (the choices of an example: all of them together) goes into the oldest open row that
// has room. Only kOpenRows rows are open; when another one is needed, the fullest is closed. Rows with less than
// kShortestPiece free places close at once. The window bounds the time of a piece,
// and keeps rows near their documents in the shuffled order.

namespace tessera {
namespace {

constexpr size_t kOpenRows = 64;
constexpr int64_t kShortestPiece = 2;  // one token has no next token to predict

// Draws for one purpose do not depend on those for another: each has a key of its own.
enum Draws : uint64_t { kDocumentOrder = 1, kRowOrder = 2 };

}  // namespace

int64_t PackedBatch::scored() const {
  return std::count_if(labels.begin(), labels.end(), [](int32_t label) { return label >= 0; });
}

PackedDataset::PackedDataset(TokenData data, int64_t sequence_length, uint64_t seed, Rules rules)
    : data_(std::move(data)), sequence_length_(sequence_length), seed_(seed), rules_(rules) {
  TS_CHECK(sequence_length >= kShortestPiece, "sequence_length is {}, expected at least {}", sequence_length,
           kShortestPiece);
  TS_CHECK(data_.scored.size() == data_.tokens.size(), "{} marks for {} tokens", data_.scored.size(),
           data_.tokens.size());
  if (data_.choices > 0) require_fitting_examples();
  pack(shuffled_pieces());
  count_scored_tokens();
  if (scored_tokens_ == 0)
    throw UserError("train.sequence_length",
                    fmt::format("no scored token is left in pieces of {} tokens", sequence_length),
                    "raise train.sequence_length, or look at the data with --show-batch");
}

void PackedDataset::require_fitting_examples() const {
  int64_t longest = 0, example = 0;
  for (int64_t d = 0; d < data_.documents(); d += data_.choices) {
    const int64_t tokens = data_.ends[d + data_.choices - 1] - begin_of(d);
    if (tokens > longest) longest = tokens, example = d / data_.choices + 1;
  }
  if (longest > sequence_length_)
    throw UserError("train.sequence_length",
                    fmt::format("the {} choices of example {} take {} tokens, a row has {}", data_.choices, example,
                                longest, sequence_length_),
                    fmt::format("all choices of an example stand in one row; this one is the longest: set "
                                "train.sequence_length to {} or more",
                                longest));
}

/// The first token of a piece is no target.
int64_t PackedDataset::scored_in(const Piece& piece) const {
  return std::count(data_.scored.begin() + piece.begin + 1, data_.scored.begin() + piece.end, uint8_t{1});
}

bool PackedDataset::has_prompt(int64_t document) const {
  if (!data_.has_prompt.empty()) return data_.has_prompt[document];
  // Files without that column: a prompt is not scored, so the second token tells.
  const int64_t second = begin_of(document) + 1;
  return second < data_.ends[document] && !data_.scored[second];
}

int32_t PackedDataset::scored_pieces(std::span<const Piece> of_a_document) const {
  if (of_a_document.size() <= 1 || rules_ == Rules::first) return 1;
  return static_cast<int32_t>(
      std::count_if(of_a_document.begin(), of_a_document.end(), [&](const Piece& p) { return scored_in(p) > 0; }));
}

std::vector<PackedDataset::Piece> PackedDataset::shuffled_pieces() const {
  std::vector<Piece> pieces;
  pieces.reserve(data_.ends.size());
  const auto units = static_cast<uint64_t>(data_.documents() / unit());
  // Units are permuted, documents or whole examples: a function of seed and count alone, without a list to keep.
  const uint64_t key = hash_key({seed_, kDocumentOrder});
  for (uint64_t i = 0; i < units; ++i) {
    const int64_t first = static_cast<int64_t>(permute_index(key, units, i)) * unit();
    for (int64_t d = first; d < first + unit(); ++d) {
      const size_t own = pieces.size();
      // A piece needs two tokens, or it has nothing to predict.
      for (int64_t begin = begin_of(d), end = data_.ends[d]; end - begin >= kShortestPiece; begin += sequence_length_)
        pieces.push_back({begin, std::min(end, begin + sequence_length_), d, 1});
      const int32_t scored = scored_pieces(std::span(pieces).subspan(own));
      for (size_t p = own; p < pieces.size(); ++p) pieces[p].scored_pieces = scored;
    }
  }
  TS_CHECK(data_.choices == 0 || pieces.size() == data_.ends.size(), "{} pieces of {} choices", pieces.size(),
           data_.ends.size());
  return pieces;
}

void PackedDataset::pack(const std::vector<Piece>& pieces) {
  std::vector<int64_t> room;  // of each open row, oldest first
  std::vector<std::vector<Piece>> open;
  const auto close = [&](size_t row) {
    pieces_.insert(pieces_.end(), open[row].begin(), open[row].end());
    row_ends_.push_back(static_cast<int64_t>(pieces_.size()));
    open.erase(open.begin() + static_cast<ptrdiff_t>(row));
    room.erase(room.begin() + static_cast<ptrdiff_t>(row));
  };
  pieces_.reserve(pieces.size());
  for (size_t first = 0; first < pieces.size(); first += static_cast<size_t>(unit())) {
    const auto together = std::span(pieces).subspan(first, static_cast<size_t>(unit()));
    int64_t length = 0;
    for (const Piece& piece : together) length += piece.end - piece.begin;
    // First fit: the oldest open row with room for all of it.
    auto row = static_cast<size_t>(std::find_if(room.begin(), room.end(), [&](int64_t r) { return r >= length; }) -
                                   room.begin());
    if (row == room.size()) {
      // The fullest row would take the fewest of the pieces to come.
      if (room.size() == kOpenRows)
        close(static_cast<size_t>(std::min_element(room.begin(), room.end()) - room.begin()));
      row = room.size();
      room.push_back(sequence_length_);
      open.emplace_back();
    }
    room[row] -= length;
    open[row].insert(open[row].end(), together.begin(), together.end());
    if (room[row] < kShortestPiece) close(row);
  }
  while (!open.empty()) close(0);
}

/// Counts the scored tokens of each row, and leaves out the rows that have none.
void PackedDataset::count_scored_tokens() {
  int64_t begin = 0, kept_pieces = 0, kept_rows = 0;
  // A copy: rows that are kept are written to the front of the list that is read.
  for (const int64_t end : std::vector(row_ends_)) {
    int64_t scored = 0;
    for (int64_t p = begin; p < end; ++p) scored += scored_in(pieces_[p]);
    if (scored > 0 || rules_ == Rules::first) {
      if (kept_pieces < begin) std::copy(pieces_.begin() + begin, pieces_.begin() + end, pieces_.begin() + kept_pieces);
      row_ends_[kept_rows++] = kept_pieces += end - begin;
    }
    scored_tokens_ += scored;
    begin = end;
  }
  rows_left_out_ = rows() - kept_rows;
  pieces_.resize(static_cast<size_t>(kept_pieces));
  row_ends_.resize(static_cast<size_t>(kept_rows));
}

int64_t PackedDataset::rows() const { return static_cast<int64_t>(row_ends_.size()); }

int32_t PackedDataset::largest_id() const { return *std::max_element(data_.tokens.begin(), data_.tokens.end()); }

double PackedDataset::fill() const {
  int64_t tokens = 0;
  for (const Piece& piece : pieces_) tokens += piece.end - piece.begin;
  return static_cast<double>(tokens) / static_cast<double>(rows() * sequence_length_);
}

double PackedDataset::mean_keys(int64_t window) const {
  double keys = 0, tokens = 0;
  for (const Piece& piece : pieces_) {
    const auto length = static_cast<double>(piece.end - piece.begin),
               growing = window == 0 ? length : std::min(length, static_cast<double>(window));
    keys += growing * (growing + 1) / 2 + (length - growing) * growing;
    tokens += length;
  }
  return keys / tokens;
}

int64_t PackedDataset::shuffled_row(int64_t index) const {
  TS_CHECK(index >= 0, "row {} of the shuffled sequence", index);
  // Every epoch has a permutation of its own, keyed by its number: the count of rows consumed is all of the state.
  const auto epoch = static_cast<uint64_t>(index / rows()), place = static_cast<uint64_t>(index % rows());
  return static_cast<int64_t>(permute_index(hash_key({seed_, kRowOrder, epoch}), static_cast<uint64_t>(rows()), place));
}

void PackedDataset::append_piece(const Piece& piece, int64_t place, PackedBatch& batch) const {
  const int64_t length = piece.end - piece.begin;
  TokenRange& range = batch.documents.emplace_back();
  range.begin = place;
  range.end = place + length;
  range.document = piece.document;
  range.pieces = piece.scored_pieces;
  if (rules_ != Rules::first) range.has_prompt = has_prompt(piece.document);
  if (data_.choices > 0) {
    range.choice = static_cast<int32_t>(piece.document % data_.choices);
    range.answer = range.choice == data_.answers[piece.document / data_.choices];
  }
  for (int64_t i = 0; i < length; ++i) {
    const int64_t token = piece.begin + i;
    batch.ids[place + i] = data_.tokens[token];
    batch.positions[place + i] = static_cast<int32_t>(i);
    // The label of a token is its successor in the same piece, where that counts: whether it does is marked at the
    // successor.
    if (i + 1 < length && data_.scored[token + 1]) batch.labels[place + i] = data_.tokens[token + 1];
  }
}

PackedBatch PackedDataset::empty_batch(int64_t rows, int64_t first_global_row) const {
  PackedBatch batch;
  batch.rows = rows;
  batch.sequence_length = sequence_length_;
  const auto tokens = static_cast<size_t>(batch.tokens());
  batch.ids.assign(tokens, 0);
  batch.positions.assign(tokens, 0);
  batch.labels.assign(tokens, -1);
  // Numbered through the global batch, whichever rank holds the row: dropout masks follow these numbers.
  batch.draw_index.resize(tokens);
  for (size_t i = 0; i < tokens; ++i)
    batch.draw_index[i] = first_global_row * sequence_length_ + static_cast<int64_t>(i);
  return batch;
}

PackedBatch PackedDataset::batch(std::span<const int64_t> rows, int64_t first_global_row) const {
  PackedBatch batch = empty_batch(static_cast<int64_t>(rows.size()), first_global_row);
  for (size_t r = 0; r < rows.size(); ++r) {
    TS_CHECK(0 <= rows[r] && rows[r] < this->rows(), "row {} of {}", rows[r], this->rows());
    int64_t place = static_cast<int64_t>(r) * sequence_length_;
    for (int64_t p = rows[r] == 0 ? 0 : row_ends_[rows[r] - 1]; p < row_ends_[rows[r]]; ++p) {
      append_piece(pieces_[p], place, batch);
      place += pieces_[p].end - pieces_[p].begin;
    }
  }
  return batch;
}

std::vector<std::vector<int64_t>> PackedDataset::pieces_by_document() const {
  std::vector<std::vector<int64_t>> found(static_cast<size_t>(documents()));
  for (size_t p = 0; p < pieces_.size(); ++p)
    if (scored_in(pieces_[p]) > 0) found[static_cast<size_t>(pieces_[p].document)].push_back(static_cast<int64_t>(p));
  // In the order of the text, wherever their rows are.
  for (auto& pieces : found)
    std::ranges::sort(pieces, {}, [&](int64_t p) { return pieces_[static_cast<size_t>(p)].begin; });
  return found;
}

std::vector<PackedBatch> PackedDataset::batches_of_pieces(std::span<const int64_t> pieces, int64_t rows) const {
  std::vector<PackedBatch> batches;
  for (size_t begin = 0; begin < pieces.size(); begin += static_cast<size_t>(rows)) {
    const auto some = pieces.subspan(begin, std::min(static_cast<size_t>(rows), pieces.size() - begin));
    PackedBatch batch = empty_batch(static_cast<int64_t>(some.size()), 0);
    for (size_t r = 0; r < some.size(); ++r)
      append_piece(pieces_[static_cast<size_t>(some[r])], static_cast<int64_t>(r) * sequence_length_, batch);
    batches.push_back(std::move(batch));
  }
  return batches;
}

RowShare row_share(int64_t batch, const DataShare& share) {
  TS_CHECK(0 <= share.index && share.index < share.count && batch >= 0, "share {} of {}, batch {}", share.index,
           share.count, batch);
  // Boundaries are rounded down from equal parts: neighbours share them, and no row is left out or taken twice.
  return {batch * share.index / share.count, batch * (share.index + 1) / share.count};
}

std::vector<int64_t> step_rows(const PackedDataset& dataset, int64_t cursor, RowShare share) {
  std::vector<int64_t> rows;
  for (int64_t place = share.begin; place < share.end; ++place) rows.push_back(dataset.shuffled_row(cursor + place));
  return rows;
}

}  // namespace tessera
