#include "read/call/prof.hpp"

#include <fmt/format.h>

#include "util/text.hpp"

namespace jemtrace::read {
namespace {

constexpr size_t max_path = 4096;

}  // namespace

Status check_prof(Caller& caller) {
  ASSIGN_OR_RETURN(const auto answers, caller.run({Request::read("config.prof", sizeof(bool)),
                                                   Request::read("opt.prof", sizeof(bool))}));
  if (answers[0].error != 0 || answers[0].value == 0) {
    return fail(Errc::unsupported,
                fmt::format("the jemalloc of pid {} was built without profiling", caller.pid()),
                "it needs a build with --enable-prof (config.prof)");
  }
  if (answers[1].error != 0 || answers[1].value == 0) {
    return fail(Errc::unsupported, fmt::format("profiling is not enabled in pid {}", caller.pid()),
                fmt::format("start it with {}=prof:true,prof_active:false; it cannot be enabled later",
                            caller.image().image->conf_variable()));
  }
  return {};
}

Status prof_dump(Caller& caller, const std::string& path) {
  if (path.empty() || path.front() != '/' || path.size() >= max_path) {
    return fail(Errc::usage, fmt::format("'{}' is no absolute path", escape(path)),
                "the process writes the file, from a working directory of its own: give the path from /");
  }
  TRY(check_prof(caller));
  ASSIGN_OR_RETURN(const auto answers, caller.run({Request::write_text("prof.dump", path)}));
  if (const int error = answers.front().error; error != 0) {
    return fail(Errc::system,
                fmt::format("pid {} could not write its profile to {}", caller.pid(), escape(path)),
                "it writes with its own rights, in its own mount namespace (/proc/PID/root)");
  }
  return {};
}

Result<bool> prof_activate(Caller& caller, bool active) {
  TRY(check_prof(caller));
  ASSIGN_OR_RETURN(const auto answers,
                   caller.run({Request::read("prof.active", sizeof(bool)),
                               Request::write("prof.active", active ? 1 : 0, sizeof(bool)),
                               Request::read("prof.active", sizeof(bool))}));
  for (const Answer& answer : answers) {
    if (answer.error != 0) {
      return fail_errno("mallctl prof.active", answer.error);
    }
  }
  if ((answers[2].value != 0) != active) {
    return fail(Errc::system, "prof.active did not change");
  }
  return answers[0].value != 0;
}

Result<std::string> prof_recent(Caller& caller) {
  TRY(check_prof(caller));
  Request request = Request::write("experimental.prof_recent.alloc_dump", 0, 2 * sizeof(uint64_t));
  request.with_callback = true;
  std::string text;
  ASSIGN_OR_RETURN(const auto answers,
                   caller.run({request}, [&text](const std::string& piece) { text += piece; }));
  if (const int error = answers.front().error; error != 0) {
    return fail_errno("mallctl experimental.prof_recent.alloc_dump", error, "it is there since jemalloc 5.3");
  }
  return text;
}

}  // namespace jemtrace::read
