#pragma once
// Posted messages between ranks of one process. Bytes are copied once, when the receiver makes progress.

#include <cstddef>
#include <map>
#include <span>
#include <vector>

#include "comm/posted.h"

namespace tessera {

/// A send is done when it has been received, however short it is. (MPI may take short messages at once: a program that
/// relies on it is found out here.) Ranks that are threads hold a lock of their own around every call.
class Mailbox {
 public:
  Posted send(const Envelope&, std::span<const std::byte>);
  Posted receive(const Envelope&, std::span<std::byte>);
  /// Receives what has been sent to this rank. @return whether there was anything
  bool progress(int rank);
  bool is_done(Posted) const;
  /// @throws InternalError for the first receive of this rank that has got another number of bytes. It is told once,
  /// and is done from then on
  void tell_wrong_size(int rank) { tell_first(wrong_[rank]); }

 private:
  template <class Byte> struct Waiting {
    Posted posted;
    Envelope envelope;
    std::span<Byte> bytes;
  };

  uint64_t posted_ = 0;
  std::vector<Waiting<const std::byte>> sends_;  // in the order of posting
  std::vector<Waiting<std::byte>> receives_;
  std::map<int, std::vector<WrongSize>> wrong_;  // by rank; not told so far
};

}  // namespace tessera
