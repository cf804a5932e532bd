#pragma once
// What a model will take once it is folded, told before anything is computed.

#include <string>
#include <vector>

#include "compress/stages.h"

namespace tessera {

/// A line each of the original, the folded and the cured model: layers, blocks and numbers that are stored and
/// computed, bytes in memory and on disk, and what the cure trains. Which blocks go and which share is not known yet:
/// the first that may be removed stand for those that will be, which is exact where all blocks are of one shape and
/// none loses a half; of halves "about" stands in front of what is not, and a line tells how much may be stored at
/// most.
/// @param sizes  of a model that is laid out
/// @throws UserError when no plan can be as the recipe asks for it
std::vector<std::string> size_lines(const StageSizes& sizes, const KeyPlaces& where);

/// Before any stage is run: @throws UserError when no plan can be as the recipe asks for it, whichever blocks will be
/// removed. Of blocks of different shapes that is known once the real plan is made.
void require_possible_plan(const StageSizes& sizes, const KeyPlaces& where);

}  // namespace tessera
