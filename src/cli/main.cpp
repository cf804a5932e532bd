#include "cli/program.h"
#include "core/thread_waiting.h"

int main(int argc, char** argv) {
  tessera::shorten_thread_spinning(argv);
  return tessera::run_program(argc, argv);
}
