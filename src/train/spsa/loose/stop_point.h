#pragma once
// Places where a test may have the program die. In a build without tests they are empty.

#include <cstdint>

namespace tessera {

/// With TESSERA_STOP_AT=NAME:NUMBER in the environment the process ends as by kill -9, the first time that it comes to
/// the place NAME with this number or a higher one.
void stop_point(const char* name, int64_t number);

}  // namespace tessera
