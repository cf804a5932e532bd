#pragma once
// The rules by which a run reckons its numbers. A run keeps those that it began with for its whole life: they stand in
// its checkpoints, in run.json and in its log's header. Where no number stands, the rules are the first.
//
//   what                                        first                        second
//   AdamW's 1 − β                               1 − the rounded β            rounded once
//   steps of epochs, warm-up steps of a ratio   through doubles              of the recipe's decimals, exactly
//   rows without a scored token                 are drawn like any other     left out when packing
//   completions of a document cut into pieces   those of its pieces          one, right when all pieces are
//   order of evaluation rows                    follows train.seed           does not
//   a round of SPSA without a valid vote        leaves the rate              halves it, like one with few

#include <cstdint>

namespace tessera {

enum class Rules : int64_t { first = 1, second = 2 };
inline constexpr Rules kNewestRules = Rules::second;

/// The rules of that number. @throws UserError, without a place, when this program does not know them
Rules rules_of(int64_t number);

}  // namespace tessera
