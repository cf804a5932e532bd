#include "comm/parts.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {

Parts even_parts(int64_t count, int ranks) {
  Parts parts;
  for (int r = 1; r <= ranks; ++r) parts.ends.push_back(count * r / ranks);
  return parts;
}

void check_parts(const Parts& parts, int ranks, int64_t count) {
  const std::vector<int64_t>& ends = parts.ends;
  TS_CHECK(static_cast<int>(ends.size()) == ranks, "{} parts for {} ranks", ends.size(), ranks);
  TS_CHECK(ends.front() >= 0 && std::is_sorted(ends.begin(), ends.end()), "a part ends before it begins");
  TS_CHECK(ends.back() == count, "the parts end at {} of {} numbers", ends.back(), count);
}

}  // namespace tessera
