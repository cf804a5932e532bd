#pragma once
// Places where a test may have the program die, or do wrong. In a build without tests they are empty.

#include <cstdint>

namespace tessera {

/// With TESSERA_STOP_AT=NAME:NUMBER in the environment the process ends as by kill -9, the first time that it comes to
/// the place NAME with this number or a higher one.
void stop_point(const char* name, int64_t number);

/// With TESSERA_FAULT_AT=NAME:NUMBER: true the first time that the process comes to the place NAME with this number or
/// a higher one. What goes wrong then stands behind it.
bool fault_point(const char* name, int64_t number);

}  // namespace tessera
