#include "explain/remedy.hpp"

#include <fmt/format.h>

namespace jemtrace::explain {

bool has(const Inputs& in, const Version& since) {
  return !in.version.known() || in.version >= since;
}

std::string set_conf(const Inputs& in, const std::string& options, const Version& since) {
  if (!has(in, since)) {
    return {};
  }
  const std::string variable = in.conf_variable.empty() ? "MALLOC_CONF" : in.conf_variable;
  std::string text = fmt::format("{}=\"{}\"", variable, options);
  if (!in.version.known()) {
    text += fmt::format(" (needs {}.{}.{}; its version is not known)", since.major, since.minor, since.patch);
  }
  return text;
}

std::string set_now(const Inputs& in, const std::string& setting) {
  return fmt::format("jemtrace stats -p {} --mallctl=call --set {}", in.pid, setting);
}

std::string purge_now(const Inputs& in) {
  return fmt::format("jemtrace stats -p {} --mallctl=call --purge", in.pid);
}

std::string version_text(const Inputs& in) {
  return in.version.known() ? fmt::format("{}.{}.{}", in.version.major, in.version.minor, in.version.patch)
                            : "of unknown version";
}

}  // namespace jemtrace::explain
