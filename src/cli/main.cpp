#include "cli/program.h"

int main(int argc, char** argv) { return tessera::run_program(argc, argv); }
