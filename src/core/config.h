#pragma once
// Configuration: each module owns a struct whose `visit` names every field once, with its range and help. Parsing, checks,
// --explain, the resolved recipe and the resume check all walk that list.

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
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

/// A recipe: TOML text and `section.key=value` overrides. An override's value is TOML, or bare text; a bare list is a,b or [a,b]. Sections are read one after the other; faults are collected and
/// thrown together by `finish`, each with file:line:column, what was found, what is allowed and the nearest known name.
class Recipe {
 public:
  /// @throws UserError: no such file, or not TOML (with its position)
  static Recipe load(const std::filesystem::path& file, const std::vector<std::string>& overrides = {});
  static Recipe from_text(const std::string& toml, const std::string& name,
                          const std::vector<std::string>& overrides = {}, const std::filesystem::path& folder = ".");
  Recipe(Recipe&&) noexcept;
  Recipe& operator=(Recipe&&) noexcept;
  ~Recipe();

  /// Sets the fields of [section] that are given ("" = top level). Call once a section.
  template <class Config> void read(const std::string& section, Config& config) {
    Fields fields;
    config.visit(fields);
    read_fields(section, fields);
  }
  void read_fields(const std::string& section, const Fields&);
  bool has(const std::string& section, const std::string& key) const;  // given, not defaulted
  /// "file:line:column" of a key that was given, else of the section, else the file's name.
  std::string where(const std::string& section, const std::string& key) const;
  /// Adds a fault found by a cross-field rule.
  void fault(const std::string& section, const std::string& key, const std::string& what, const std::string& hint = {});
  /// Reports unknown sections and keys and throws all faults as one UserError.
  void finish();

  const std::string& name() const;  // the file's stem: "mos_lora"
  const std::filesystem::path& folder() const;
  /// TOML of every section read, defaults spelled out, paths absolute: feeding it back repeats the run.
  /// @param except  a "section.key" that is left out
  std::string resolved(const std::string& except = {}) const;
  /// "section.key" -> value text of every field read; what resume compares.
  std::vector<std::pair<std::string, std::string>> flat() const;
  /// Help of every field read: "section.key" -> text with default, range and meaning.
  std::vector<std::pair<std::string, std::string>> explain() const;

 private:
  struct State;
  explicit Recipe(std::unique_ptr<State>);
  std::unique_ptr<State> state_;
};

}  // namespace tessera
