#pragma once
// The faults of a file that is read whole before anything is computed: the first ones are told together.

#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"

namespace tessera {

class LineFaults {
 public:
  /// Runs `work`, which reads one line. Its UserError counts as that line's fault.
  /// @param where  "FILE:LINE", of errors that name no place
  template <class Work> void collect(const std::string& where, const Work& work) {
    try {
      with_place(where, work);
    } catch (const UserError& error) {
      add(error);
    }
  }
  void add(const UserError&);
  int64_t count() const { return count_; }
  /// @throws UserError when there is a fault: the first ten as "FILE:LINE: reason", a line each, then their number
  void require_none() const;

 private:
  std::vector<UserError> first_{};
  int64_t count_ = 0;
};

}  // namespace tessera
