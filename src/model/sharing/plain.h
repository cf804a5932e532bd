#pragma once
// The plain base: no sharing.

#include "model/sharing/base.h"

namespace tessera {

/// The plain base: every storage is one slot. Weights are read from the source (frozen ones stay mapped, in the file's
/// type) or drawn when there is none.
std::unique_ptr<BaseSharing> make_plain(const SharingConfig&, const KeyPlaces& where);

}  // namespace tessera
