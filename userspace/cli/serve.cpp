#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <array>
#include <thread>

#include "cli/run.hpp"
#include "cli/serve_watch.hpp"
#include "cli/signals.hpp"
#include "serve/pages.hpp"
#include "serve/push.hpp"
#include "serve/server.hpp"
#include "serve/service.hpp"
#include "serve/snapshots.hpp"
#include "util/clock.hpp"
#include "util/file.hpp"
#include "util/say.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

Result<std::string> read_token(const std::string& path) {
  constexpr size_t longest = 4096;
  constexpr size_t shortest = 16;
  if (path.empty()) {
    return std::string();
  }
  ASSIGN_OR_RETURN(std::string token, read_file(path, longest));
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r')) {
    token.pop_back();
  }
  const bool printable = std::all_of(token.begin(), token.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (token.size() < shortest || !printable) {
    return fail(Errc::usage, fmt::format("the token in {} is no token", escape(path)),
                "one line of 16 or more printable characters without spaces; openssl rand -hex 32 makes one");
  }
  return token;
}

/// The socket that systemd passes, else one of our own; with what protects it.
Result<serve::Listener> open_listener(const ServeOptions& options) {
  ASSIGN_OR_RETURN(serve::Listener listener, serve::take_activated());
  if (!listener.socket) {
    ASSIGN_OR_RETURN(const serve::Address address, serve::parse_address(options.listen));
    ASSIGN_OR_RETURN(listener, serve::listen_on(address));
  }
  if (!listener.loopback && options.token_file.empty() && options.tls_certificate.empty() &&
      !options.insecure) {
    return fail(Errc::usage, fmt::format("{} can be reached from other hosts", listener.address),
                "give --token-file, or --tls-cert and --tls-key; --insecure lets anybody read the metrics");
  }
  return listener;
}

/// A thread that runs until it is told to end, and is waited for.
class Worker {
 public:
  template <typename Run>
  explicit Worker(Run run) : stop_(::eventfd(0, EFD_CLOEXEC)), thread_([this, run] { run(stop_.get()); }) {}
  ~Worker() {
    (void)::eventfd_write(stop_.get(), 1);
    thread_.join();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

 private:
  Fd stop_;
  std::thread thread_;
};

/// Until SIGINT or SIGTERM.
Status watch(ServeWatch& watch, serve::Snapshots& snapshots, Signals& signals) {
  const auto watchdog = serve::watchdog_ns();
  uint64_t next_sample = 0;
  uint64_t next_sign = 0;
  for (;;) {
    const uint64_t now = monotonic_ns();
    if (watchdog && now >= next_sign) {
      serve::notify("WATCHDOG=1");
      next_sign = now + *watchdog / 2;
    }
    uint64_t wake = std::min(next_sample, now + collect::Tracer::check_every_ns);
    wake = watchdog ? std::min(wake, next_sign) : wake;
    const int timeout_ms = wake <= now ? 0 : static_cast<int>((wake - now) / 1'000'000 + 1);
    std::array<pollfd, 3> fds{{{.fd = watch.wait_fd(), .events = POLLIN, .revents = 0},
                               {.fd = signals.fd(), .events = POLLIN, .revents = 0},
                               {.fd = snapshots.wanted_fd(), .events = POLLIN, .revents = 0}}};
    ::poll(fds.data(), fds.size(), timeout_ms);
    TRY(watch.poll());
    if (signals.take()) {
      return {};
    }
    if (fds[2].revents != 0) {
      snapshots.publish(watch.expose());
    }
    if (const uint64_t then = monotonic_ns(); then >= next_sample) {
      next_sample = watch.sample_some(then);
    }
  }
}

}  // namespace

Result<int> serve_metrics(const Options& options) {
  const ServeOptions& serving = options.serve;
  ASSIGN_OR_RETURN(const std::string token, read_token(serving.token_file));
  ASSIGN_OR_RETURN(serve::Listener listener, open_listener(serving));
  std::unique_ptr<serve::Tls> tls;
  if (!serving.tls_certificate.empty()) {
    ASSIGN_OR_RETURN(tls, serve::Tls::server(serving.tls_certificate, serving.tls_key));
  }
  const bool by_tls = tls != nullptr;
  const ledger::Header who = make_header(options);

  Signals signals;  // before any thread: they inherit what is blocked
  serve::Snapshots snapshots;
  serve::Pages pages(snapshots, token, who.jemtrace_version);
  serve::Server server(std::move(listener.socket), std::move(tls), serve::Server::Limits(), std::ref(pages));
  std::optional<serve::Pusher> pusher;
  if (!serving.otlp.empty()) {
    ASSIGN_OR_RETURN(serve::Url url, serve::parse_url(serving.otlp));
    pusher.emplace(serve::Pusher::Options{.url = std::move(url),
                                          .delta = serving.otlp_delta,
                                          .interval_ms = static_cast<uint64_t>(serving.otlp_interval.count()),
                                          .resource = {.host = who.host, .version = who.jemtrace_version}},
                   snapshots);
  }
  ASSIGN_OR_RETURN(
      const std::unique_ptr<ServeWatch> started,
      ServeWatch::start(
          {.tracing = {.selection = options.selection, .refaults = options.refaults},
           .limits = {.max_targets = serving.max_targets, .pid_label = serving.pid_label},
           .version = who.jemtrace_version,
           .kernel = who.kernel,
           .sample_every_ns = static_cast<uint64_t>(std::chrono::nanoseconds(options.interval).count()),
           .add_counts = [&](serve::Own& own) {
             own.scrapes = pages.scrapes();
             own.rejected_requests = server.counts().refused_requests;
             own.rejected_connections = server.counts().dropped_connections;
             own.push = pusher ? std::optional(pusher->counts()) : std::nullopt;
           }}));
  ServeWatch& watching = *started;
  snapshots.publish(watching.expose());
  {
    const Worker http([&](int stop) { server.run(stop); });
    std::optional<Worker> otlp;
    if (pusher) {
      otlp.emplace([&](int stop) { pusher->run(stop); });
    }
    say("{} at {}://{}/metrics; {} processes use jemalloc (Ctrl-C ends)", "metrics",
        by_tls ? "https" : "http", listener.address, watching.targets());
    serve::notify("READY=1");
    const Status status = watch(watching, snapshots, signals);
    serve::notify("STOPPING=1");
    TRY(status);
  }
  watching.stop();
  return exit_status::ok;
}

}  // namespace jemtrace::cli
