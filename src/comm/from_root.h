#pragma once
// What rank 0 alone can find, as a file that only it sees: found or refused on every rank alike.

#include <functional>
#include <string>

#include "comm/communicator.h"

namespace tessera {

/// A collective: the text that `find` returns on rank 0, where it is called, on every rank.
/// @throws UserError on every rank, with place and hint, when `find` throws one
std::string from_root(Communicator&, const std::function<std::string()>& find);

}  // namespace tessera
