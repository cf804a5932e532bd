#pragma once
// Inputs are stored files: what is read only once, never ends or waits for someone is told before it is opened.

#include <filesystem>
#include <string>

namespace tessera {

/// What lies there in place of a stored file, in words ("is a pipe or a device and no file"); empty for a file, for a
/// folder and where nothing is.
std::string fault_of_file(const std::filesystem::path&);

}  // namespace tessera
