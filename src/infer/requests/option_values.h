#pragma once
// Values of a line's members, with what they have to be. Errors name the member, its value and what was expected.

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"

namespace tessera {

/// A member of a line under the name that the line gives it.
struct NamedValue {
  std::string name;
  const Json* value;

  /// @throws UserError without a place: "\"top_p\" is 3, expected a number from 0 to 1"
  [[noreturn]] void refuse(const std::string& expected) const;
  bool truth() const;
  const std::string& text() const;
  int64_t whole(int64_t least, int64_t most) const;
  /// Finite, and in [least, most].
  double number(double least, double most) const;
  /// Above 0, and at most `most`.
  double positive(double most) const;
  /// One text or a list of them, none of them empty.
  std::vector<std::string> texts() const;
  /// A list of token ids below `vocab`.
  std::vector<int32_t> ids(int64_t vocab) const;
  /// One id or a list of them.
  std::vector<int32_t> id_or_ids(int64_t vocab) const;
};

}  // namespace tessera
