#pragma once
// Links of the file system that lead nowhere.

#include <filesystem>
#include <string>

namespace tessera {

/// What is wrong with a link that cannot be followed, as it goes behind its name: is a link to "X", which is not there.
/// Empty for a link that can be, for what is no link, and where there is nothing.
std::string fault_of_link(const std::filesystem::path&);

}  // namespace tessera
