#pragma once
// Which part of the data is a rank's own.

namespace tessera {

/// Share `index` of `count`: the rows of a step, those of an evaluation and the votes of a round are split by it. A
/// rank's number says who writes and who speaks; its share says what it reads. Ranks of one group hold the same share,
/// and so read the same rows.
struct DataShare {
  int index = 0, count = 1;
  int member = 0;  // of its group: what the ranks of a group find alike is summed over ranks from member 0 alone

  bool leads() const { return member == 0; }
};

}  // namespace tessera
