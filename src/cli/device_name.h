#pragma once
// Where a job computes, in words.

#include <string>

#include "cli/jobs.h"

namespace tessera {

/// The device that run.device stands for, as it would name it: never "auto".
std::string device_name(const JobInputs&);

}  // namespace tessera
