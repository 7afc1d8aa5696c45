// OpenSSL 3 by dlopen: linked, it would cost every start of jemtrace 10 ms of relocations, for the few who
// serve by TLS.
#include <dlfcn.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <climits>

#include "serve/channel.hpp"
#include "util/text.hpp"

namespace jemtrace::serve {
namespace {

// What is used of OpenSSL.
// clang-format off
#define JT_EACH_SSL(use) \
  use(TLS_server_method) use(SSL_CTX_new) use(SSL_CTX_free) use(SSL_CTX_ctrl) \
  use(SSL_CTX_use_certificate_chain_file) use(SSL_CTX_use_PrivateKey_file) \
  use(SSL_CTX_check_private_key) use(SSL_new) use(SSL_free) use(SSL_set_fd) use(SSL_set_accept_state) \
  use(SSL_read) use(SSL_write) use(SSL_shutdown) use(SSL_get_error) use(ERR_clear_error) \
  use(ERR_get_error) use(ERR_error_string_n)
// clang-format on

struct OpenSsl {
// A declaration cannot stand in parentheses.
// NOLINTNEXTLINE(bugprone-macro-parentheses)
#define JT_SSL(name) decltype(&::name) name = nullptr;
  JT_EACH_SSL(JT_SSL)
#undef JT_SSL

  Status load() {
    void* library = ::dlopen("libssl.so.3", RTLD_NOW | RTLD_LOCAL);  // kept until the end
    if (library == nullptr) {
      return fail(Errc::unsupported, std::string("cannot load OpenSSL: ") + ::dlerror(), "install libssl3");
    }
    bool complete = true;
    const auto find = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, symbol));
      complete = complete && function != nullptr;
    };
#define JT_SSL(name) find(name, #name);
    JT_EACH_SSL(JT_SSL)
#undef JT_SSL
    if (!complete) {
      return fail(Errc::unsupported, "this OpenSSL lacks functions that are needed", "install libssl3");
    }
    return {};
  }

  [[nodiscard]] std::string last_error() const {
    std::array<char, 256> text{};
    ERR_error_string_n(ERR_get_error(), text.data(), text.size());
    return escape(text.data());
  }
};

class TlsChannel final : public Channel {
 public:
  TlsChannel(const OpenSsl& lib, SSL* ssl, Fd socket) : lib_(lib), ssl_(ssl), socket_(std::move(socket)) {
    if (ssl_ != nullptr) {
      lib_.SSL_set_fd(ssl_, socket_.get());
      lib_.SSL_set_accept_state(ssl_);
    }
  }
  ~TlsChannel() override {
    if (ssl_ != nullptr) {
      lib_.ERR_clear_error();
      if (sound_) {
        lib_.SSL_shutdown(ssl_);  // says goodbye; nobody waits for the answer
      }
      lib_.SSL_free(ssl_);
    }
  }
  Move read(char* to, size_t size) override {
    if (ssl_ == nullptr) {
      return {};
    }
    lib_.ERR_clear_error();
    return result(lib_.SSL_read(ssl_, to, static_cast<int>(std::min<size_t>(size, INT_MAX))));
  }
  Move write(std::string_view from) override {
    lib_.ERR_clear_error();
    return result(
        lib_.SSL_write(ssl_, from.data(), static_cast<int>(std::min<size_t>(from.size(), INT_MAX))));
  }
  [[nodiscard]] int fd() const override { return socket_.get(); }

 private:
  Move result(int moved) {
    if (moved > 0) {
      return {Outcome::moved, static_cast<size_t>(moved)};
    }
    switch (lib_.SSL_get_error(ssl_, moved)) {
      case SSL_ERROR_WANT_READ:
        return {Outcome::want_read, 0};
      case SSL_ERROR_WANT_WRITE:
        return {Outcome::want_write, 0};
      default:
        sound_ = false;
        return {Outcome::closed, 0};
    }
  }

  const OpenSsl& lib_;
  SSL* ssl_;
  Fd socket_;
  bool sound_ = true;
};

class TlsServer final : public Tls {
 public:
  TlsServer(OpenSsl lib, SSL_CTX* context) : lib_(lib), context_(context) {}
  ~TlsServer() override { lib_.SSL_CTX_free(context_); }
  std::unique_ptr<Channel> accept(Fd socket) override {
    return std::make_unique<TlsChannel>(lib_, lib_.SSL_new(context_), std::move(socket));
  }

 private:
  OpenSsl lib_;
  SSL_CTX* context_;
};

}  // namespace

Result<std::unique_ptr<Tls>> Tls::server(const std::string& certificate, const std::string& key) {
  OpenSsl lib;
  TRY(lib.load());
  SSL_CTX* context = lib.SSL_CTX_new(lib.TLS_server_method());
  if (context == nullptr) {
    return fail(Errc::system, "OpenSSL: " + lib.last_error());
  }
  auto tls = std::make_unique<TlsServer>(lib, context);
  lib.SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, nullptr);
  // A buffer may have grown meanwhile, and may lie elsewhere.
  lib.SSL_CTX_ctrl(context, SSL_CTRL_MODE,
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, nullptr);
  if (lib.SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1) {
    return fail(Errc::usage, "cannot use the certificate " + escape(certificate) + ": " + lib.last_error());
  }
  if (lib.SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1 ||
      lib.SSL_CTX_check_private_key(context) != 1) {
    return fail(Errc::usage, "cannot use the private key " + escape(key) + ": " + lib.last_error());
  }
  return tls;
}

}  // namespace jemtrace::serve
