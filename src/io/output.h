#pragma once
// Standard output: the one place that writes to it.

#include <fmt/core.h>

#include <string_view>
#include <utility>

#include "core/error.h"

namespace tessera {

/// Writes to standard output. A reader that has gone (`| head`) is no fault: what follows is dropped. Any other failure
/// is kept for finish_output, so that a job whose results go to files brings them to its end.
void put_out(std::string_view text);
/// put_out of a formatted text.
template <class... Values> void print_out(fmt::format_string<Values...> format, Values&&... values) {
  put_out(fmt::format(format, std::forward<Values>(values)...));
}
/// Hands over what was written so far, for a reader who watches. @return whether all of it could be written so far
bool flush_output();

/// Ends standard output, after the last write.
/// @throws UserError when something could not be written, say on a full disk
void finish_output();

}  // namespace tessera
