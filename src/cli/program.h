#pragma once
// cli/: argv, recipe, job choice, and the one place that prints errors.

namespace tessera {

/// The whole program; returns the exit code.
int run_program(int argc, char** argv);

}  // namespace tessera
