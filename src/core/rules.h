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
//
// The third differ from the second in one thing: normal draws (first values) are of the functions of docs/functions.md,
// and no longer of the C library's log and cos. With them came one order for every sum (docs/determinism.md). That is
// not kept apart by rules: a run that began before goes on in the new order, and says so.

#include <cstdint>

namespace tessera {

enum class Rules : int64_t { first = 1, second = 2, third = 3 };
inline constexpr Rules kNewestRules = Rules::third;

/// The rules of that number. @throws UserError, without a place, when this program does not know them
Rules rules_of(int64_t number);

}  // namespace tessera
