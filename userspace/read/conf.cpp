#include "read/conf.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "util/text.hpp"

namespace jemtrace::read {
namespace {

constexpr size_t environ_limit = size_t{4} << 20;

void apply(std::map<std::string, Setting>& conf, std::string_view text, const std::string& source) {
  for (auto& [key, value] : parse_conf(text)) {
    conf[key] = {value, source};
  }
}

}  // namespace

// From jemalloc's include/jemalloc/internal/arena_types.h and src/jemalloc.c at
/// each tag.
std::map<std::string, Setting> default_settings(const std::string& version) {
  std::map<std::string, Setting> conf;
  const auto [major, minor] = major_minor(version);
  if (major != 5) {
    return conf;
  }
  const std::string source = "default of " + version.substr(0, version.find('-'));
  conf["dirty_decay_ms"] = {"10000", source};
  conf["muzzy_decay_ms"] = {minor < 2 ? "10000" : "0", source};
  conf["background_thread"] = {"false", source};
  conf["retain"] = {"true", source};
  if (minor >= 2) {
    conf["oversize_threshold"] = {"8388608", source};
  }
  if (minor >= 1) {
    conf["thp"] = {"default", source};
  }
  return conf;
}

std::map<std::string, std::string> parse_conf(std::string_view text) {
  std::map<std::string, std::string> out;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view pair = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const size_t colon = pair.find(':');
    if (colon != std::string_view::npos && colon > 0) {
      out[std::string(pair.substr(0, colon))] = pair.substr(colon + 1);
    }
  }
  return out;
}

std::string_view find_variable(std::string_view environ, std::string_view name) {
  while (!environ.empty()) {
    const size_t nul = std::min(environ.find('\0'), environ.size());
    const std::string_view entry = environ.substr(0, nul);
    environ.remove_prefix(std::min(nul + 1, environ.size()));
    if (entry.size() > name.size() && entry.substr(0, name.size()) == name && entry[name.size()] == '=') {
      return entry.substr(name.size() + 1);
    }
  }
  return {};
}

std::vector<std::pair<std::string_view, std::string_view>> conf_variables(std::string_view environ) {
  constexpr std::string_view ending = "MALLOC_CONF";
  constexpr size_t most = 16;
  std::vector<std::pair<std::string_view, std::string_view>> out;
  while (!environ.empty() && out.size() < most) {
    const size_t nul = std::min(environ.find('\0'), environ.size());
    const std::string_view entry = environ.substr(0, nul);
    environ.remove_prefix(std::min(nul + 1, environ.size()));
    const std::string_view name = entry.substr(0, entry.find('='));
    if (name.size() < entry.size() && name.ends_with(ending)) {
      out.emplace_back(name, entry.substr(name.size() + 1));
    }
  }
  return out;
}

bool is_intact(std::string_view environ) {
  return environ.empty() || environ.substr(0, environ.find('\0')).find('=') != std::string_view::npos;
}

Conf read_conf(const ProcRoot& proc, pid_t pid, const std::string& version, const std::string& variable,
               const std::string& prefix, const ProgramConf& program) {
  const auto environ = proc.read(pid, "environ", environ_limit);
  if (!environ) {
    return {.settings = {}, .unknown_because = "its environment cannot be read"};
  }
  // What the environment said is gone, and with it what overrides what: a default might be printed that is
  // none.
  if (!is_intact(*environ)) {
    return {.settings = {}, .unknown_because = "it has overwritten its environment"};
  }
  Conf conf{.settings = default_settings(version), .unknown_because = {}};
  if (conf.settings.empty()) {
    conf.unknown_because = "its version of jemalloc is not known";
  }
  apply(conf.settings, program.conf.value_or(""), prefix + "malloc_conf in the program");
  const std::string symlink = "etc/" + prefix + "malloc.conf";
  // jemalloc reads the *name* that the link points to; nothing is opened.
  if (const auto link = proc.link(pid, "root/" + symlink)) {
    apply(conf.settings, *link, "/" + symlink);
  }
  apply(conf.settings, find_variable(*environ, variable), variable + " in its environment");
  apply(conf.settings, program.harder.value_or(""), prefix + "malloc_conf_2_conf_harder in the program");
  return conf;
}

}  // namespace jemtrace::read
