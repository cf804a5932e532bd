#pragma once
// The log of loose nodes: records in a stream of NATS JetStream, votes and control messages beside it. docs/nats.md.

#include "steplog/log_engine.h"
#include "steplog/nats_settings.h"

namespace tessera {

/// Whether the program was built with libnats.
bool has_nats();

/// Connects, begins the run with its header if this node is the first and may, else reads the header that is there, and
/// reads the log from its beginning. Calls come from one thread.
///
/// Beyond LogEngine: read(from) with a number that was dropped by an earlier read() begins to read the log anew and is
/// empty until then (complete is false). append() is won also when these very bytes are there already, so that it may
/// be repeated after unknown. It takes `patience` at most, and so does wait() beyond its timeout, or a few of them
/// where the server stands still and the connection does not end. All but log_state() throw UserError when the server
/// refuses this node while it runs, and when the log holds a message that is no record.
/// @throws UserError in the words of the recipe's keys: no server, refused, another header under the name (naming the
///   first key that differs), no run under the name and this node may not begin one; built without libnats
std::unique_ptr<LogEngine> make_nats_engine(const NatsSettings&, const std::string& header_json);

/// How it works: machines find each other at a server, none knows how many there are, and one of them packs.
LogEngine::Manners nats_manners();

}  // namespace tessera
