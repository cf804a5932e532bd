#include <algorithm>

#include "comm/communicator.h"
#include "core/error.h"

namespace tessera {
namespace {

struct Group {
  std::string value;
  std::vector<int> ranks;
};

std::vector<Group> group_by_value(const std::vector<std::vector<std::byte>>& gathered) {
  std::vector<Group> groups;
  for (size_t rank = 0; rank < gathered.size(); ++rank) {
    const std::string value(reinterpret_cast<const char*>(gathered[rank].data()), gathered[rank].size());
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.value == value; });
    if (group == groups.end()) group = groups.insert(groups.end(), Group{value, {}});
    group->ranks.push_back(static_cast<int>(rank));
  }
  return groups;
}

/// "rank 2", "ranks 0, 1, 4-7"
std::string ranks_text(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank" : "ranks";
  for (size_t i = 0; i < ranks.size();) {
    size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    text += fmt::format("{} {}", i == 0 ? "" : ",", ranks[i]);
    if (last > i) text += fmt::format("{} {}", last > i + 1 ? " to" : ",", ranks[last]);
    i = last + 1;
  }
  return text;
}

/// The line of `value` in which it leaves `other`, cut to a readable length.
std::string excerpt(const std::string& value, const std::string& other) {
  constexpr size_t kBefore = 24, kLength = 72;
  const size_t differs = std::mismatch(value.begin(), value.end(), other.begin(), other.end()).first - value.begin();
  const size_t newline = differs == 0 ? std::string::npos : value.rfind('\n', differs - 1);
  const size_t line = newline == std::string::npos ? 0 : newline + 1;
  const size_t begin = differs - line > kBefore + kLength / 2 ? differs - kBefore : line;
  const size_t end = std::min({value.find('\n', differs), begin + kLength, value.size()});
  return fmt::format("{}\"{}\"{}", begin > 0 ? "..." : "", value.substr(begin, end - begin),
                     end < value.size() ? "..." : "");
}

}  // namespace

void require_equal(Communicator& comm, const std::string& what, const std::string& value) {
  const auto groups = group_by_value(comm.all_gather(std::as_bytes(std::span(value))));
  if (groups.size() == 1) return;
  constexpr size_t kShown = 4;
  std::string hint;
  for (size_t i = 0; i < std::min(groups.size(), kShown); ++i)
    hint +=
        fmt::format("{}: {}\n", ranks_text(groups[i].ranks), excerpt(groups[i].value, groups[i == 0 ? 1 : 0].value));
  if (groups.size() > kShown) hint += fmt::format("and {} more\n", groups.size() - kShown);
  hint += "every rank must run the same program on the same recipe and the same files";
  throw UserError("", fmt::format("the ranks differ in {}", what), hint);
}

}  // namespace tessera
