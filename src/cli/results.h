#pragma once
// What a training leaves in its run folder: adapter/, sharing/, model/, peft/.

#include <functional>

#include "cli/written.h"

namespace tessera {

/// Runs `work`; where it fails, the hint goes on with what is kept nevertheless.
void naming_what_is_kept(const std::string& kept, const std::function<void()>& work);

/// Writes what [export] asks for into a run's folder; full training always exports the model. What was trained comes
/// first, as it is: an adapter or shared weights; what is made of it and may fail (merging, another dtype,
/// another format) comes behind.
/// @param say  told each folder that was written; may be empty
/// @throws UserError whose hint ends with what is kept, and how the rest is written once the fault is mended
/// @return the folders, without figures
std::vector<Written> export_results(const JobInputs&, const Context&, Model&, const std::filesystem::path& folder,
                                    const std::function<void(const std::string&)>& say);

/// Writes the dense model into a run's folder. @return the folder, and whether its numbers were rounded
Written write_model(const JobInputs&, const Context&, Model&, const std::filesystem::path& run);

/// That a folder holds rounded weights, and how they come out as they are; empty where none was rounded.
/// @param meaning  what follows from it, behind a comma; may be empty
std::string rounded_notice(const Written&, const std::string& meaning = {});

/// Whether a training ends with a dense model: full training always,
/// unless its weights are shared and can be loaded as such.
bool writes_model(const JobInputs&, Model&);
/// Whether an export writes the adapter or the shared weights as they were trained, too: those of a checkpoint unless
/// export.native is false, and others where the command line asks for export.native. A run has them from its end on.
bool exports_native(const JobConfig&, const Recipe&);
/// What a dense export is called where it is told: of a shared model with how much larger it is.
std::string dense_notice(Model&);

}  // namespace tessera
