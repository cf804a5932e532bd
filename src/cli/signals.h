#pragma once
// What the process does when the world outside speaks: a stop, a stream that is closed, a page or a file that ends.

namespace tessera {

/// Signals that ask for a stop (see stop_requested): INT, TERM, HUP unless it is ignored, USR1, USR2, XCPU. Several at
/// a time are one request; INT or TERM half a second after INT or TERM ends the process at once. Under mpirun these two
/// always do, since it leaves its ranks half a second.
/// @param launched  whether a launcher started this process
void install_stop_signals(bool launched);

/// For every command, first of all: a stream that the caller closed leads nowhere, instead of into the next file that
/// is opened; a reader that leaves (`| head`) does not end a run; a file that may not grow (`ulimit -f`) is a failed
/// write; a mapped file that shrinks ends it with a message.
void guard_process();

}  // namespace tessera
