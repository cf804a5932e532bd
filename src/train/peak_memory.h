#pragma once
// The peak of this process's memory (peak_rss_bytes in reporter.h), counted anew.

namespace tessera {

/// From now on peak_rss_bytes tells the most memory that was resident since this call, where the system lets a process
/// set its peak back (Linux); elsewhere the old peak stays. Who measures the process from outside no longer sees the
/// peak before.
void restart_peak_rss();

}  // namespace tessera
