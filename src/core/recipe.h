#pragma once
// A recipe: which keys of a TOML file and of the command line set which fields of the configuration.

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/fields.h"
#include "core/key_places.h"
#include "core/overrides.h"
#include "core/section_check.h"

namespace tessera {

/// TOML text and `section.key=value` overrides. An override's value is TOML, or bare text; a bare list is a,b or
/// [a,b]. A section may lie in another ("a.b" is [a.b]) or be an array of tables ([[a.b]], whose first is "a.b[0]").
/// Sections are read one after the other; faults are collected and thrown together by `finish`, each with
/// file:line:column, what was found, what is allowed and the nearest known name.
class Recipe {
 public:
  /// @throws UserError: no such file, or not TOML (with its position)
  static Recipe load(const std::filesystem::path& file, const std::vector<std::string>& overrides = {});
  static Recipe from_text(const std::string& toml, const std::string& name,
                          const std::vector<std::string>& overrides = {}, const std::filesystem::path& folder = ".");

  /// Sets the fields of [section] that are given ("" = top level), and has the section check itself.
  /// Call once a section.
  template <class Config> void read(const std::string& section, Config& config) {
    Fields fields;
    config.visit(fields);
    read_fields(section, fields);
    if constexpr (requires(SectionCheck & own) { config.check(own); }) {
      SectionCheck own(*this, section);
      config.check(own);
    }
  }
  /// Gives `list` an element for each table of [[section]]. The recipe keeps looking at them.
  template <class Config> void read_list(const std::string& section, std::vector<Config>& list) {
    const auto blank = std::make_shared<Config>();
    Fields fields;
    blank->visit(fields);
    list.assign(begin_list(section, fields, blank), *blank);
    for (size_t i = 0; i < list.size(); ++i) read(element(section, i), list[i]);
  }
  bool has(const std::string& section, const std::string& key) const;  // given, not defaulted
  /// The keys that are given in a section, whatever they are: of one whose names are the user's own.
  std::set<std::string> given_keys(const std::string& section) const;
  /// "file:line:column" of a key that was given, else of the section, else the file's name.
  std::string where(const std::string& section, const std::string& key) const;
  /// The keys of a section that was read that hold something else than their defaults.
  std::set<std::string> said(const std::string& section) const;
  /// `where` of every key of a section that was read.
  KeyPlaces places(const std::string& section) const;
  /// The text that a key was given, as it stands there: a path before it was resolved. Empty when none was.
  std::string given_text(const std::string& section, const std::string& key) const;
  /// Adds a fault found by a cross-field rule.
  void fault(const std::string& section, const std::string& key, const std::string& what, const std::string& hint = {});
  /// Reports unknown sections and keys and throws all faults as one UserError. Where there are none, paths that are
  /// told as typed are by now.
  void finish();

  const std::string& name() const;  // the file's stem: "mos_lora"
  const std::filesystem::path& folder() const;
  /// TOML of every section read, defaults spelled out, paths absolute: feeding it back repeats the run.
  /// @param except  a "section.key" that is left out
  std::string resolved(const std::vector<std::string>& except = {}) const;
  /// "section.key" -> value text of every field read, and of an array of tables how many there are;
  /// what resume compares.
  std::vector<std::pair<std::string, std::string>> flat() const;
  /// Whether "section.key" may change when a run goes on; `same` for what is no field.
  OnResume on_resume(const std::string& full_key) const;
  /// Help of every field read: "section.key" -> text with default, range and meaning;
  /// of tables in an array "section[].key".
  std::vector<std::pair<std::string, std::string>> explain() const;

 private:
  struct ReadField {
    std::string section;
    Field field;
    std::string default_text;
    bool is_blank() const { return section.ends_with("[]"); }  // of an array of tables, whatever their number
    std::string full_key() const { return section.empty() ? field.key : section + "." + field.key; }
  };
  struct List {
    size_t count = 0;
    std::shared_ptr<const void> blank;  // a table at its defaults, which the fields "section[].key" look at
  };

  Recipe() = default;
  void read_fields(const std::string& section, const Fields&);
  size_t begin_list(const std::string& section, const Fields&, std::shared_ptr<const void> blank);
  static std::string element(const std::string& section, size_t index);
  void set_given(const ReadField&);
  void require_f32(const ReadField&);
  void tell_as_typed(const ReadField&) const;
  std::string place_of(const TomlPlace&) const;
  std::string section_hint(const std::string& key) const;  // for a key outside its section
  std::string given_place(const TomlPlace& key, const std::string& full_key, bool from_override) const;
  void check_names(const TomlTable&, const std::string& section, bool from_override);
  void check_name(const TomlValue&, const std::string& section, const std::string& name, bool from_override);
  bool check_list(const TomlValue&, const std::string& full_name, const std::string& at, bool from_override);
  std::vector<std::string> sections_in(const std::string& name) const;
  std::vector<std::string> known_keys(const std::string& section) const;

  std::string file_, name_;
  std::filesystem::path folder_;
  TomlTable table_;
  Overrides overrides_;
  std::vector<ReadField> fields_;
  std::map<std::string, List> lists_;
  std::vector<std::string> sections_, faults_;
};

}  // namespace tessera
