#include "comm/mpi/requests.h"

#include "comm/mpi/handles.h"

namespace tessera::mpi {
namespace {

constexpr int kFirstTag = 1;  // tag 0 is that of exchanges

}  // namespace

Posted Requests::send(MPI_Comm comm, const Envelope& envelope, std::span<const std::byte> bytes) {
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Isend(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, envelope.to, kFirstTag + envelope.tag, comm,
                  &request),
        "MPI_Isend");
  requests_.push_back(request);
  moving_.push_back({next(), {}});
  return moving_.back().posted;
}

Posted Requests::receive(const Envelope& envelope, std::span<std::byte> bytes) {
  return receives_.emplace_back(Receive{next(), envelope, bytes}).posted;
}

void Requests::progress(MPI_Comm comm) {
  begin_receives(comm);
  forget_ended();
  tell_first(wrong_);
}

bool Requests::is_done(Posted posted) const {
  TS_CHECK(static_cast<uint64_t>(posted) < posted_, "message {} of {} posted ones", static_cast<uint64_t>(posted),
           posted_);
  return !holds(receives_, posted) && !holds(moving_, posted) && !holds(wrong_, posted);
}

/// In the order of posting: behind one whose message is not there yet, none with the same envelope begins.
void Requests::begin_receives(MPI_Comm comm) {
  late_.clear();
  std::erase_if(receives_, [&](const Receive& receive) {
    if (std::find(late_.begin(), late_.end(), receive.envelope) != late_.end()) return false;
    const bool has_begun = begin(comm, receive);
    if (!has_begun) late_.push_back(receive.envelope);
    return has_begun;
  });
}

bool Requests::begin(MPI_Comm comm, const Receive& receive) {
  const Envelope& envelope = receive.envelope;
  int is_there = 0, sent = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  check(MPI_Improbe(envelope.from, kFirstTag + envelope.tag, comm, &is_there, &message, &status), "MPI_Improbe");
  if (!is_there) return false;
  check(MPI_Get_count(&status, MPI_BYTE, &sent), "MPI_Get_count");
  Moving moving{receive.posted, {}};
  std::span<std::byte> bytes = receive.bytes;
  if (const auto receives = static_cast<int64_t>(bytes.size()); receives != sent) {
    wrong_.push_back({receive.posted, envelope, receives, sent});
    moving.unwanted.resize(static_cast<size_t>(sent));
    bytes = moving.unwanted;
  }
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Imrecv(bytes.data(), sent, MPI_BYTE, &message, &request), "MPI_Imrecv");
  requests_.push_back(request);
  moving_.push_back(std::move(moving));
  return true;
}

void Requests::forget_ended() {
  if (requests_.empty()) return;
  ended_.resize(requests_.size());
  int count = 0;
  check(MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count, ended_.data(), MPI_STATUSES_IGNORE),
        "MPI_Testsome");
  std::sort(ended_.begin(), ended_.begin() + count, std::greater<>());  // places, from the last to the first
  for (int i = 0; i < count; ++i) {
    requests_.erase(requests_.begin() + ended_[i]);
    moving_.erase(moving_.begin() + ended_[i]);
  }
}

}  // namespace tessera::mpi
