#pragma once
// `trainer --list KIND`: what the registries hold that a recipe can name.

#include <string>

namespace tessera {

/// "jobs, adapters, ...": what can be listed.
std::string listed_kinds();

/// A line for each entry of a kind's registry, in its order: the name, and what it is.
/// @throws UserError for a kind that is none of listed_kinds
std::string list_kind(const std::string& kind);

}  // namespace tessera
