#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "util/result.hpp"

struct gcry_md_handle;

namespace jemtrace::locate {

/// BLAKE2b-256: two contents with one digest cannot be made, whoever tries.
class Digest {
 public:
  using Value = std::array<uint8_t, 32>;

  /// Fails where the host forbids it (FIPS mode).
  static Result<Digest> start();
  void add(std::string_view bytes);
  /// Of all that was added. Nothing may be added after.
  Value value();

 private:
  struct Close {
    void operator()(gcry_md_handle* handle) const;
  };
  std::unique_ptr<gcry_md_handle, Close> handle_;
};

}  // namespace jemtrace::locate
