#pragma once
// Native folders (adapter_io.h) as adapters of their own: what the method needs to know is in the folder.

#include "model/saved_adapter.h"

namespace tessera {

/// As open_adapter, of a folder with adapter.json.
std::unique_ptr<SavedAdapter> open_native_adapter(const std::filesystem::path& folder, const std::string& where);

}  // namespace tessera
