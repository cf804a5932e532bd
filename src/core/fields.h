#pragma once
// Configuration: each module owns a struct whose `visit` names every field once, with its range and help. Parsing,
// checks, --explain, the resolved recipe and the resume check all walk that list. Rules between the fields of one
// struct are its `check` (section_check.h).

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace tessera {

class SectionCheck;

/// What a value may be. Bounds are inclusive.
struct Rule {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool above_min = false;  // min itself is not allowed
  bool as_typed = false;   // a path that is told as the user would have to type it: from the working directory
  /// Of a path that is not there: where else its text may lead, or empty.
  std::filesystem::path (*elsewhere)(const std::string& text) = nullptr;
  bool in_f32 = false;               // arithmetic takes it as f32: neither 0 nor infinity may come of it there
  std::vector<std::string> choices;  // of a string; empty: any
};
Rule anything();
Rule in_range(double min, double max);
Rule at_least(double min);
Rule above(double min, double max = std::numeric_limits<double>::infinity());
Rule one_of(std::vector<std::string> choices);
Rule in_f32(Rule);
Rule path_as_typed();
Rule path_or(std::filesystem::path (*elsewhere)(const std::string& text));

/// Whether a run that goes on may have another value than it began with. A run goes on where it lies, in a new folder
/// that begins with one of its checkpoints, or in a branch of its log (runs of SPSA), whose header states what every
/// round of it is read by.
enum class OnResume {
  same,             // no: what is trained depends on it
  free,             // yes: it is how a run is made or what else is done with it
  same_data,        // it names data, which may lie elsewhere: their contents are compared
  same_weights,     // it names weights, which may lie elsewhere: their contents are compared
  longer,           // how long to train: more of it once all is done, and anything in a new folder or a branch
  in_new_folder,    // in a new folder or a branch: no state that is kept depends on it
  from_checkpoint,  // in a new folder only: a log's header holds it
  in_branch,        // in a branch only: what the rounds behind it came of shows in the log
  rate,             // as in_new_folder; the learning rate follows it, and is told before and after
  same_model,       // as same; also compared by jobs that read what was trained, which they would read otherwise
};

/// A field's storage. optional<> fields are absent unless given. A path is resolved against the recipe's folder when
/// the recipe names it, against the working directory when the command line does.
using FieldTarget = std::variant<bool*, int64_t*, double*, std::string*, std::filesystem::path*,
                                 std::vector<std::string>*, std::optional<int64_t>*, std::optional<double>*>;

struct Field {
  std::string key;
  FieldTarget target;
  Rule rule;
  std::string help;
  OnResume on_resume = OnResume::same;
};

/// What `visit(Fields&)` fills:  v("rank", rank, in_range(1, 1024), "rank of each low-rank update").
class Fields {
 public:
  template <class T>
  void operator()(std::string key, T& member, Rule rule, std::string help, OnResume on_resume = OnResume::same) {
    list.push_back({std::move(key), FieldTarget(&member), std::move(rule), std::move(help), on_resume});
  }
  std::vector<Field> list;
};

}  // namespace tessera
