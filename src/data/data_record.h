#pragma once
// One line of a JSONL file, as templates and labels need it: numbers keep the spelling that the line gives them.

#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace tessera {

class DataRecord {
 public:
  /// @param line   must outlive the record
  /// @param where  "file:line", for errors
  /// @throws UserError: not UTF-8, no JSON, no object
  DataRecord(std::string_view line, std::string where);

  /// A member by its name, else by its path ("instances.0.input"); nullptr when it is not there or null.
  const Json* find(std::string_view path) const;

  /// A member that is text. @throws UserError when it is not there or something else
  const std::string& text(const std::string& path) const;

  /// A member as a template takes it: text as it is, numbers and truth values as the line spells them.
  /// @throws UserError when it is not there, or a list or an object
  std::string spelled(const std::string& path) const;

  const std::string& where() const { return where_; }
  std::vector<std::string> member_names() const;
  /// "members here: a, b"
  std::string members_hint() const;

 private:
  [[noreturn]] void fail_missing(const std::string& path) const;
  std::string shown(std::string_view path) const;
  std::string spelling(const Json& value) const;

  std::string_view line_;
  std::string where_;
  Json json_;                         // in which each number is its place in `numbers_`
  std::vector<std::string> numbers_;  // as the line spells them
};

/// The first byte that belongs to no UTF-8 character; npos when all do.
size_t first_utf8_fault(std::string_view text);

/// @throws UserError naming `where` and the byte
void require_utf8(std::string_view text, const std::string& where);

}  // namespace tessera
