#include "locate/digest.hpp"

#include <gcrypt.h>

#include <cstring>

namespace jemtrace::locate {
namespace {

bool set_up() {
  static const bool done = [] {
    if (gcry_check_version(nullptr) == nullptr) {
      return false;
    }
    gcry_control(GCRYCTL_DISABLE_SECMEM, 0);  // no secrets here
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    return true;
  }();
  return done;
}

}  // namespace

void Digest::Close::operator()(gcry_md_handle* handle) const {
  gcry_md_close(handle);
}

Result<Digest> Digest::start() {
  gcry_md_hd_t handle = nullptr;
  if (!set_up() || gcry_md_open(&handle, GCRY_MD_BLAKE2B_256, 0) != 0) {
    return fail(Errc::unsupported, "libgcrypt has no BLAKE2b here");
  }
  Digest digest;
  digest.handle_.reset(handle);
  return digest;
}

void Digest::add(std::string_view bytes) {
  gcry_md_write(handle_.get(), bytes.data(), bytes.size());
}

Digest::Value Digest::value() {
  Value value{};
  if (const unsigned char* bytes = gcry_md_read(handle_.get(), GCRY_MD_BLAKE2B_256)) {
    std::memcpy(value.data(), bytes, value.size());
  }
  return value;
}

}  // namespace jemtrace::locate
