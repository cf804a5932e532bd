#pragma once
// Document-aware packing: rows of fixed length that hold whole documents where they fit;
// documents never see each other.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/data_share.h"
#include "core/rules.h"
#include "data/token_data.h"

namespace tessera {

/// A half-open range of tokens of a batch that belong to one document (or one piece of a longer one). The choices of an
/// example stand one behind the other in one row, choice 0 first.
struct TokenRange {
  int64_t begin, end;
  int32_t choice = -1;    // number of the label word that the document ends with; -1: the document is no choice
  bool answer = false;    // it is the right choice of its example
  int64_t document = -1;  // its number in the data set, the same in all batches
  int32_t pieces = 1;     // of that document with a scored token, this one or others
  std::optional<bool> has_prompt{};  // that document begins with a prompt; not told: when its first label is not scored
};

/// Rows of equal length, one behind the other. Padding (id 0) lies outside every range and is never scored.
struct PackedBatch {
  int64_t rows = 0, sequence_length = 0;
  std::vector<int32_t> ids, positions;  // [rows · sequence_length]; positions restart at 0 in each range
  std::vector<int32_t> labels;          // next token of the same piece where it is scored, else -1
  std::vector<int64_t> draw_index;  // the token's number in the global batch: global row · sequence_length + column
  std::vector<TokenRange> documents;
  int64_t scored() const;  // labels >= 0
  int64_t tokens() const { return rows * sequence_length; }
};

/// A data set as rows of one length, a function of (tokens, sequence length, seed) alone.
///
///   row 0   |document 7 |document 2   |document 9|..|      .. padding
///   row 1   |document 4, first piece                |
///   row 2   |its rest      |document 1          |...|
///
/// Documents are shuffled by `seed`, cut at sequence_length (pieces restart at position 0; a piece of one token is
/// dropped), and packed first-fit into rows in that order (a bounded window of open rows). Rows without a scored token
/// are left out. The choices of an example are never cut and stand in one row, in their order: a batch of rows holds
/// all that comparing them takes. Row order of epoch e is a keyed permutation,
/// so "which rows come next" is one integer: the count of rows consumed.
class PackedDataset {
 public:
  /// @param sequence_length  at least 2
  /// @throws UserError when no scored token is left, or the choices of an example do not fit into a row
  PackedDataset(TokenData, int64_t sequence_length, uint64_t seed, Rules = kNewestRules);
  int64_t rows() const;
  int64_t rows_left_out() const { return rows_left_out_; }  // without a scored token
  int64_t sequence_length() const { return sequence_length_; }
  int64_t documents() const { return data_.documents(); }
  int64_t choices() const { return data_.choices; }         // documents an example; 0: documents stand alone
  int64_t scored_tokens() const { return scored_tokens_; }  // in one epoch
  int32_t largest_id() const;
  const std::string& hash() const { return data_.hash; }
  double fill() const;  // share of row places that hold tokens
  /// Mean over the tokens of the keys that causal attention shows them: those of their piece up to themselves, at most
  /// `window`; 0: all.
  double mean_keys(int64_t window) const;

  /// The row (number in storage order) at place `index` of the endless shuffled sequence: epoch index / rows().
  int64_t shuffled_row(int64_t index) const;
  /// The given rows as a batch; draw_index counts from global row `first_global_row`.
  PackedBatch batch(std::span<const int64_t> rows, int64_t first_global_row) const;

  /// The pieces of each document that stand in a row, by its number: what batches_of_pieces takes. Of documents
  /// without a scored token there are none.
  std::vector<std::vector<int64_t>> pieces_by_document() const;
  /// Pieces, a row each, in batches of at most so many rows.
  std::vector<PackedBatch> batches_of_pieces(std::span<const int64_t> pieces, int64_t rows) const;

 private:
  struct Piece {
    int64_t begin, end;  // in data_.tokens
    int64_t document;
    int32_t scored_pieces;  // of the document
  };
  // Tokens stay in the order of the documents; rows are lists of pieces, and a batch copies what it needs.
  TokenData data_;
  int64_t sequence_length_;
  uint64_t seed_;
  Rules rules_;
  std::vector<Piece> pieces_;      // in row order
  std::vector<int64_t> row_ends_;  // into pieces_
  int64_t scored_tokens_ = 0, rows_left_out_ = 0;

  int64_t begin_of(int64_t document) const { return document == 0 ? 0 : data_.ends[document - 1]; }
  int64_t unit() const { return std::max<int64_t>(1, data_.choices); }  // pieces that stay together
  void require_fitting_examples() const;
  int64_t scored_in(const Piece&) const;
  bool has_prompt(int64_t document) const;
  int32_t scored_pieces(std::span<const Piece> of_a_document) const;
  std::vector<Piece> shuffled_pieces() const;
  void pack(const std::vector<Piece>&);
  void count_scored_tokens();
  PackedBatch empty_batch(int64_t rows, int64_t first_global_row) const;
  void append_piece(const Piece&, int64_t place, PackedBatch&) const;
};

/// A share's part of a global batch of `batch` rows: rows [begin, end) of it.
/// Parts are contiguous, in the order of the shares, and differ by one row at most.
struct RowShare {
  int64_t begin, end;
};
RowShare row_share(int64_t batch, const DataShare&);

/// One global step's rows for a share: places cursor + share of the shuffled sequence.
std::vector<int64_t> step_rows(const PackedDataset&, int64_t cursor, RowShare);

}  // namespace tessera
