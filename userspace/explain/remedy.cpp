#include "explain/remedy.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>

namespace jemtrace::explain {

bool has(const Inputs& in, const Version& since) {
  return !in.version.known() || in.version >= since;
}

namespace {

/// What cannot end a quoted string, nor begin anything in it. Untrusted text is pasted into shells.
bool is_plain(const std::string& text) {
  return !text.empty() && text.size() <= 200 && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || (c != 0 && std::strchr("_.-/|+%", c) != nullptr);
  });
}

void add_option(std::string& out, const std::string& name, const std::string& value) {
  out += fmt::format("{}{}:{}", out.empty() ? "" : ",", name, value);
}

bool names(const std::string& options, const std::string& name) {
  return ("," + options).find("," + name + ":") != std::string::npos;
}

std::string variable_of(const Inputs& in) {
  return in.conf_variable.empty() ? "MALLOC_CONF" : in.conf_variable;
}

}  // namespace

std::string set_conf(const Inputs& in, const std::string& options) {
  std::string all;
  for (const Request& request : in.requests.value_or(std::vector<Request>())) {
    if (request.variable != variable_of(in)) {
      continue;
    }
    for (const auto& [name, value] : request.options) {
      if (is_plain(name) && is_plain(value) && !names(options, name)) {
        add_option(all, name, value);
      }
    }
  }
  return fmt::format("{}=\"{}{}{}\"", variable_of(in), all, all.empty() ? "" : ",", options);
}

std::string set_conf(const Inputs& in, const std::map<std::string, std::string>& options) {
  std::string all;
  for (const auto& [name, value] : options) {
    if (is_plain(name) && is_plain(value)) {
      add_option(all, name, value);
    }
  }
  return fmt::format("{}=\"{}\"", variable_of(in), all);
}

std::string set_now(const Inputs& in, const std::string& setting) {
  return fmt::format("jemtrace stats -p {} --mallctl=call --set {}", in.pid, setting);
}

std::string purge_now(const Inputs& in) {
  return fmt::format("jemtrace stats -p {} --mallctl=call --purge", in.pid);
}

std::string version_text(const Inputs& in) {
  return in.version.known() ? version_text(in.version) : "of unknown version";
}

std::string version_text(const Version& version) {
  return fmt::format("{}.{}.{}", version.major, version.minor, version.patch);
}

}  // namespace jemtrace::explain
