#pragma once
// The error of memory that cannot be had, apart from other errors, since its hint is the job's to give.

#include "core/error.h"

namespace tessera {

/// Memory could not be reserved. What would need less of it depends on the job, which whoever prints the error knows.
class OutOfMemory : public UserError {
 public:
  using UserError::UserError;
};

}  // namespace tessera
