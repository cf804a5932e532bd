#pragma once
// How idle threads wait, which has to be settled before OpenMP starts.

namespace tessera {

/// Makes idle OpenMP threads sleep soon instead of spinning: call first in main. GNU OpenMP reads its settings before
/// main, so when the user has set neither GOMP_SPINCOUNT nor OMP_WAIT_POLICY the program starts itself again with a
/// short spin (about 0.1 ms). Measured on two cores that other processes kept busy:
/// training ran 30 times slower with the default spin of several milliseconds.
void shorten_thread_spinning(char** argv);

}  // namespace tessera
