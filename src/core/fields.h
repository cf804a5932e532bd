#pragma once
// Configuration: each module owns a struct whose `visit` names every field once, with its range and help. Parsing, checks,
// --explain, the resolved recipe and the resume check all walk that list.

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace tessera {

/// What a value may be. Bounds are inclusive.
struct Rule {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool above_min = false;            // min itself is not allowed
  std::vector<std::string> choices;  // of a string; empty: any
};
Rule anything();
Rule in_range(double min, double max);
Rule at_least(double min);
Rule above(double min, double max = std::numeric_limits<double>::infinity());
Rule one_of(std::vector<std::string> choices);

/// A field's storage. optional<> fields are absent unless given. A path is resolved against the recipe's folder when the
/// recipe names it, against the working directory when the command line does.
using FieldTarget = std::variant<bool*, int64_t*, double*, std::string*, std::filesystem::path*,
                                 std::vector<std::string>*, std::optional<int64_t>*, std::optional<double>*>;

struct Field {
  std::string key;
  FieldTarget target;
  Rule rule;
  std::string help;
};

/// What `visit(Fields&)` fills:  v("rank", rank, in_range(1, 1024), "rank of each low-rank update").
class Fields {
 public:
  template <class T> void operator()(std::string key, T& member, Rule rule, std::string help) {
    list.push_back({std::move(key), FieldTarget(&member), std::move(rule), std::move(help)});
  }
  std::vector<Field> list;
};

}  // namespace tessera
