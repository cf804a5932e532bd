#pragma once
// Native folders (native_folder.h) that are damaged: what there is to do about it.

namespace tessera {

/// How a damaged description, or a folder that holds one, is mended.
inline constexpr const char* kMendNative =
    "it was altered or cut short: take another copy of the folder. The run that wrote it can write it again: by "
    "job=export run.resume=FILE from a checkpoint, by job=replay from the log of SPSA, by job=compress";

}  // namespace tessera
