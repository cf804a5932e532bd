#pragma once
// What the program and its MPI plugin agree on. The number in the symbol's name goes up with every change of
// Communicator's virtual functions, so that a plugin left from another build is refused instead of crashing.

namespace tessera {

class Communicator;

inline constexpr char kMpiPluginFile[] = "libtessera_mpi.so";
inline constexpr char kMpiPluginSymbol[] = "tessera_mpi_world_2";

/// Defined by a plugin whose MPI starts under srun by PMIx alone.
inline constexpr char kMpiNeedsPmixSymbol[] = "tessera_mpi_needs_pmix";

/// Starts MPI and returns the world; the caller owns it. May throw UserError.
using MpiWorldFunction = Communicator*();

}  // namespace tessera
