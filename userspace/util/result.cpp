#include "util/result.hpp"

#include <system_error>

namespace jemtrace {

std::string Error::message() const {
  return sys == 0 ? what : what + ": " + std::generic_category().message(sys);
}

tl::unexpected<Error> fail_errno(std::string what, int err, std::string hint) {
  Errc code = Errc::system;
  if (err == ESRCH || err == ENOENT) {
    code = Errc::gone;
  } else if (err == EPERM || err == EACCES) {
    code = Errc::denied;
  }
  return tl::unexpected<Error>(Error{code, std::move(what), err, std::move(hint)});
}

}  // namespace jemtrace
