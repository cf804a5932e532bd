#pragma once
// Errors: what the user can mend (UserError) and what is our fault (TS_CHECK).

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// A fault that the user can mend: a recipe, a file, an argument, memory, a missing rank.
/// `main` prints it once, from one rank, and exits with code 2.
class UserError : public std::runtime_error {
 public:
  /// @param where  the place: "recipes/a.toml:14:1", a file name, a recipe key; may be empty
  /// @param what   what was found and what was expected
  /// @param hint   how to mend it; may be empty, may have several lines
  UserError(std::string where, std::string what, std::string hint = {});
  const std::string& where() const { return where_; }
  const std::string& message() const { return message_; }
  const std::string& hint() const { return hint_; }

 private:
  std::string where_, message_, hint_;
};

/// A stop that was asked for (signal): the run is intact and can be continued. Exit code 130.
class Stopped : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Our own mistake. Exit code 1.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void fail_check(const char* file, int line, const char* condition, const std::string& details);

/// Runs `work`; its UserErrors that name no place get this one.
template <class Work> auto with_place(const std::string& where, Work work) {
  try {
    return work();
  } catch (const UserError& error) {
    if (!error.where().empty()) throw;
    throw UserError(where, error.message(), error.hint());
  }
}

/// The known name nearest to `found` by edit distance, or an empty string when none is near.
std::string nearest_name(std::string_view found, const std::vector<std::string>& known);

}  // namespace tessera

/// Always on, at module boundaries: TS_CHECK(a == b, "weight is {}, expected {}", a, b).
#define TS_CHECK(condition, ...)                                                                       \
  do {                                                                                                 \
    if (!(condition)) ::tessera::fail_check(__FILE__, __LINE__, #condition, fmt::format(__VA_ARGS__)); \
  } while (0)
