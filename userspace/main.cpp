#include "cli/run.hpp"

int main(int argc, char** argv) {
  return jemtrace::cli::run(argc, argv);
}
