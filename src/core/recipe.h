#pragma once
// A recipe: which keys of a TOML file and of the command line set which fields of the configuration.

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/fields.h"
#include "core/key_places.h"
#include "core/overrides.h"

namespace tessera {

/// TOML text and `section.key=value` overrides. An override's value is TOML, or bare text; a bare list is a,b or
/// [a,b]. Sections are read one after the other; faults are collected and thrown together by `finish`, each with
/// file:line:column, what was found, what is allowed and the nearest known name.
class Recipe {
 public:
  /// @throws UserError: no such file, or not TOML (with its position)
  static Recipe load(const std::filesystem::path& file, const std::vector<std::string>& overrides = {});
  static Recipe from_text(const std::string& toml, const std::string& name,
                          const std::vector<std::string>& overrides = {}, const std::filesystem::path& folder = ".");

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
  /// `where` of every key of a section that was read.
  KeyPlaces places(const std::string& section) const;
  /// The text that a key was given, as it stands there: a path before it was resolved. Empty when none was.
  std::string given_text(const std::string& section, const std::string& key) const;
  /// Adds a fault found by a cross-field rule.
  void fault(const std::string& section, const std::string& key, const std::string& what, const std::string& hint = {});
  /// Reports unknown sections and keys and throws all faults as one UserError.
  void finish();

  const std::string& name() const;  // the file's stem: "mos_lora"
  const std::filesystem::path& folder() const;
  /// TOML of every section read, defaults spelled out, paths absolute: feeding it back repeats the run.
  /// @param except  a "section.key" that is left out
  std::string resolved(const std::vector<std::string>& except = {}) const;
  /// "section.key" -> value text of every field read; what resume compares.
  std::vector<std::pair<std::string, std::string>> flat() const;
  /// Help of every field read: "section.key" -> text with default, range and meaning.
  std::vector<std::pair<std::string, std::string>> explain() const;

 private:
  struct ReadField {
    std::string section;
    Field field;
    std::string default_text;
    std::string full_key() const { return section.empty() ? field.key : section + "." + field.key; }
  };

  Recipe() = default;
  void set_given(const ReadField&);
  std::string place_of(const TomlPlace&) const;
  std::string section_hint(const std::string& key) const;  // for a key outside its section
  std::string given_place(const TomlPlace& key, const std::string& full_key, bool from_override) const;
  void check_names(const TomlTable&, bool from_override);
  void check_keys(const TomlTable&, const std::string& section, bool from_override);
  std::vector<std::string> known_keys(const std::string& section) const;

  std::string file_, name_;
  std::filesystem::path folder_;
  TomlTable table_;
  Overrides overrides_;
  std::vector<ReadField> fields_;
  std::vector<std::string> sections_, faults_;
};

}  // namespace tessera
