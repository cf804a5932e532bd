#pragma once
// Posted messages over MPI. A receive is begun when its message, or the head of it, has arrived: only then is the
// length known. MPI_Irecv ahead of the message would write past the end of the bytes when another rank sends more than
// they hold, as Open MPI 4.1 was seen to do before it reports that the message was too long.

#include <mpi.h>

#include <cstddef>
#include <span>
#include <vector>

#include "comm/posted.h"

namespace tessera::mpi {

class Requests {
 public:
  Posted send(MPI_Comm, const Envelope&, std::span<const std::byte>);
  Posted receive(const Envelope&, std::span<std::byte>);
  /// Begins the receives whose messages are there, and takes note of what has ended.
  /// @throws InternalError when a receive has got another number of bytes
  void progress(MPI_Comm);
  bool is_done(Posted) const;

 private:
  struct Receive {
    Posted posted;
    Envelope envelope;
    std::span<std::byte> bytes;
  };
  struct Moving {
    Posted posted;
    std::vector<std::byte> unwanted;  // where a message of the wrong length goes
  };
  Posted next() { return Posted{posted_++}; }
  bool begin(MPI_Comm, const Receive&);
  void begin_receives(MPI_Comm);
  void forget_ended();

  uint64_t posted_ = 0;
  std::vector<Receive> receives_;      // not begun, in the order of posting
  std::vector<MPI_Request> requests_;  // under way
  std::vector<Moving> moving_;         // one a request
  std::vector<WrongSize> wrong_;       // not told so far
  std::vector<Envelope> late_;         // scratch of progress(), which is called often
  std::vector<int> ended_;
};

}  // namespace tessera::mpi
