#pragma once

#include <map>
#include <ostream>
#include <span>
#include <string>

#include "live.hpp"

/// The one test of exactness, for any build of jemalloc. Oracle: the stats.arenas.* that the workload prints
/// when nothing can be purged any more.
namespace jemtrace::live {

/// Which sweeps a workload must have seen, so that a test cannot pass because nothing happened.
enum class Expect { some, none, any };

struct Configuration {
  const char* name;
  const char* malloc_conf;
  Strings command;  // a workload and its arguments
  Expect dirty_sweeps, muzzy_sweeps;
};
std::ostream& operator<<(std::ostream& out, const Configuration& configuration);

std::span<const Configuration> configurations();

/// A way to run a workload with some build of jemalloc.
struct Build {
  std::map<std::string, std::string> environment = {};
  Strings launcher = {};  // goes before the program
  std::string tier = {};
  std::string version = {};  // its beginning; empty: any
};

/// Runs a configuration from exec to exit, $JEMTRACE_REPEAT times: all six counters are jemalloc's own, every
/// sweep has a cause, nothing is lost.
void expect_exact(const Build& build, const std::string& program, const Configuration& configuration);

}  // namespace jemtrace::live
