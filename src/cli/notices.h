#pragma once
// What a job says on stderr while it works: notices, never results.

#include <functional>
#include <string>

#include "cli/jobs.h"

namespace tessera {

/// A notice of a job that has no log, on stderr: once, unless it is to be quiet or there is nothing to say.
void tell(const JobInputs&, const std::string& notice);
/// tell, for those who have something to say while they work. The inputs must outlive it.
std::function<void(const std::string&)> teller(const JobInputs&);

}  // namespace tessera
