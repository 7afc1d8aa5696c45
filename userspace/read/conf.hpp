#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "util/file.hpp"

/// Readings of jemalloc.
namespace jemtrace::read {

struct Setting {
  std::string value;   // untrusted
  std::string source;  // where it comes from, for people
};
struct Conf {
  std::map<std::string, Setting> settings;  // empty when unknown
  std::string unknown_because;              // a clause: "it has overwritten its environment"
};

/// "key:value,key:value" as in MALLOC_CONF; later ones win. Malformed pairs are left out, as jemalloc does.
std::map<std::string, std::string> parse_conf(std::string_view text);

/// The value of `name` in the NUL-separated text of /proc/PID/environ; empty when absent.
std::string_view find_variable(std::string_view environ, std::string_view name);

/// All whose names end in MALLOC_CONF, with their values; at most 16.
std::vector<std::pair<std::string_view, std::string_view>> conf_variables(std::string_view environ);

/// False when the process has written over its environment, as programs do that change their title
/// (redis-server).
bool is_intact(std::string_view environ);

/// Defaults on 64-bit Linux, by jemalloc's option names; empty when the version is unknown.
std::map<std::string, Setting> default_settings(const std::string& version);

/// What the program itself says: `malloc_conf`, and `malloc_conf_2_conf_harder`, which overrides all else.
/// nullopt: nothing, or it could not be read. Untrusted.
struct ProgramConf {
  std::optional<std::string> conf, harder;
};

/// What the process was started with: defaults of its version, then what the program says, then the name of
/// /etc/<prefix>malloc.conf's target, then its environment (jemalloc's own order). Options set later through
/// mallctl are not seen here. `version`: "5.3.0-0-g..."; `variable`: "MALLOC_CONF" or its prefixed form;
/// `prefix`: of the public API.
Conf read_conf(const ProcRoot& proc, pid_t pid, const std::string& version, const std::string& variable,
               const std::string& prefix, const ProgramConf& program = {});

}  // namespace jemtrace::read
