#pragma once
// MPI's handles as C++ values: the library's start and end, and a communicator that frees itself.

#include <mpi.h>

#include <memory>
#include <string>
#include <utility>

#include "core/error.h"

namespace tessera::mpi {

/// Throws when an MPI call failed, with MPI's own words. (The error handler MPI_ERRORS_RETURN is set on every
/// communicator.)
inline void check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw InternalError(fmt::format("{} failed: {}", call, std::string(text, length)));
}

/// MPI from MPI_Init to MPI_Finalize; shared by all communicators.
class Library {
 public:
  Library();
  /// Waits for all ranks, so it does nothing while an exception unwinds: the others may be waiting in a collective, and
  /// leaving without MPI_Finalize is what tells the launcher to end them.
  ~Library();
  Library(const Library&) = delete;
};

/// Owns one MPI_Comm. Not copyable: a second owner would free it twice.
class Comm {
 public:
  Comm(std::shared_ptr<Library> library, MPI_Comm handle) : library_(std::move(library)), handle_(handle) {}
  ~Comm();
  Comm(const Comm&) = delete;
  operator MPI_Comm() const { return handle_; }
  const std::shared_ptr<Library>& library() const { return library_; }

 private:
  std::shared_ptr<Library> library_;  // outlives the handle
  MPI_Comm handle_;
};

}  // namespace tessera::mpi
