// The expositions of many hosts, made by the code that makes the real ones, from purges that are made up:
// what a fleet looks like to a Prometheus, without the machines. It knows the truth about all purges of all
// hosts.
//
//   /host/I/metrics            one host, in the format that is asked for
//   /classic/host/I/metrics    the same as text: classic histograms, also for who would take native ones
//   /sd, /sd/classic           all hosts, for http_sd_configs
//   /truth                     JSON: count, sum and quantiles of all purges pooled, exact
//
// With --otlp the first host is also pushed, as jemtrace serve does.
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <thread>

#include "serve/accounts.hpp"
#include "serve/encode.hpp"
#include "serve/push.hpp"
#include "serve/server.hpp"
#include "util/clock.hpp"

namespace {

using namespace jemtrace;
using serve::Request;
using serve::Response;

struct Options {
  size_t hosts = 100;
  unsigned seed = 1;
  std::string listen = "127.0.0.1:0";
  size_t purges = 2000;  // of each host, before the first scrape
  double rate = 0;       // more of them each second, on each host
  size_t processes = 3;  // on each host
  size_t connections = 4096;
  std::string otlp;  // push the first host there
  bool otlp_delta = false;
  uint64_t otlp_interval_ms = 200;
  bool nasty = false;  // names that an attacker would choose
};

class Host {
 public:
  Host(size_t index, const Options& options, std::vector<uint32_t>& truth)
      : options_(options), random_(options.seed * 1'000'003 + static_cast<unsigned>(index)), truth_(truth) {
    static const std::vector<std::string> names = {"redis-server", "mysqld",  "cassandra",
                                                   "ripgrep",      "fluentd", "nginx"};
    static const std::vector<std::string> nasty_names = {"a\"b\\c\nd", "\xff\xfe{}=,#", "\xe2\x82",
                                                         " # EOF\n",   "le=\"1\"",      "\x1b[31m"};
    for (size_t i = 0; i < options.processes; ++i) {
      ledger::TargetInfo info;
      info.pid = static_cast<pid_t>(1000 + i);
      info.comm = options.nasty ? nasty_names[i % nasty_names.size()] : names[(index + i) % names.size()];
      info.cgroup = fmt::format("/system.slice/{}.service", i);
      if (options.nasty) {
        info.cgroup += "/\"\n\\\xc3";
      }
      info.images.push_back(
          {.version = "5.3.0", .linkage = i % 2 == 0 ? "shared" : "static", .tier = "recovered"});
      accounts_.begin(i, info, 0);
      accounts_.measure(i, {.rss_bytes = 900 << 20,
                            .lazyfree_bytes = i << 20,
                            .allocated_bytes = 500 << 20,
                            .active_bytes = 600 << 20,
                            .dirty_bytes = 100 << 20,
                            .muzzy_bytes = 200 << 20,
                            .retained_bytes = uint64_t{2} << 30});
      if (index % 10 == 0 && i == 0) {
        accounts_.set_findings(i, {{"LAZYFREE_INFLATED", true}});
      }
    }
    slowness_ = index % 10 == 9 ? 8 : 1;  // some hosts are in trouble
    last_ns_ = monotonic_ns();
    purge(options.purges);
  }

  serve::Exposition expose() {
    const uint64_t now = monotonic_ns();
    owed_ += options_.rate * static_cast<double>(now - last_ns_) / 1e9;
    last_ns_ = now;
    purge(static_cast<size_t>(owed_));
    owed_ -= std::floor(owed_);
    serve::Own own{.version = "simulated", .kernel = "6.18", .start_unix_ns = start_unix_ns_};
    own.bpf_run_ns = 1'000'000;
    for (auto& loss : own.losses) {
      loss = 0;
    }
    return accounts_.expose(work_, own, now, unix_ns());
  }

 private:
  void purge(size_t count) {
    constexpr std::array<jt_transition, 3> transitions = {JT_DIRTY_MUZZY, JT_MUZZY_RETAINED,
                                                          JT_DIRTY_RETAINED};
    std::lognormal_distribution<double> latency_us(std::log(12.0 * slowness_), 1.1);
    for (size_t i = 0; i < count; ++i) {
      const auto ns = static_cast<uint32_t>(std::clamp(latency_us(random_) * 1000, 30.0, 4e9));
      const size_t process = random_() % options_.processes;
      const jt_transition transition = transitions[random_() % transitions.size()];
      const jt_payer payer = random_() % 4 == 0 ? JT_PAYER_APP : JT_PAYER_BACKGROUND;
      ledger::Histogram one;
      one.record(ns, 1, 4096 * (1 + random_() % 64));
      work_[process].add(transition, payer, one);
      work_[process].sweeps[JT_STATE_DIRTY][JT_CAUSE_TICK] += random_() % 8 == 0 ? 1 : 0;
      truth_.push_back(ns);
      accounts_.slow(process, transition, payer,
                     {.pid = static_cast<pid_t>(1000 + process),
                      .tid = 2000,
                      .arena = 1,
                      .latency_ns = ns,
                      .unix_ns = unix_ns()},
                     monotonic_ns());
    }
  }

  const Options& options_;
  std::minstd_rand random_;
  std::vector<uint32_t>& truth_;
  serve::Accounts accounts_{{}};
  std::map<uint64_t, serve::Work> work_;
  double slowness_ = 1, owed_ = 0;
  uint64_t last_ns_ = 0;
  int64_t start_unix_ns_ = unix_ns();
};

class Fleet {
 public:
  explicit Fleet(const Options& options) : options_(options) {
    for (size_t i = 0; i < options.hosts; ++i) {
      hosts_.push_back(std::make_unique<Host>(i, options_, truth_));
    }
  }

  std::string truth() {
    const std::lock_guard lock(mutex_);
    std::sort(truth_.begin(), truth_.end());
    nlohmann::ordered_json out{{"hosts", hosts_.size()}, {"count", truth_.size()}};
    uint64_t sum = 0;
    for (const uint32_t ns : truth_) {
      sum += ns;
    }
    out["sum_ns"] = sum;
    for (const auto& [key, q] :
         {std::pair{"p50_ns", 0.5}, {"p90_ns", 0.9}, {"p99_ns", 0.99}, {"p999_ns", 0.999}}) {
      const auto rank = static_cast<size_t>(std::ceil(q * static_cast<double>(truth_.size())));
      out[key] = truth_.empty() ? 0 : truth_[std::max<size_t>(rank, 1) - 1];
    }
    return out.dump();
  }

  serve::Exposition expose(size_t index) {
    const std::lock_guard lock(mutex_);
    return hosts_[index]->expose();
  }

  Response operator()(const Request& request) {
    std::string_view path = request.path;
    if (path == "/truth") {
      return json(truth());
    }
    if (path == "/sd" || path == "/sd/classic") {
      return json(targets(std::string(request.header("host")), path == "/sd" ? "" : "/classic"));
    }
    const bool classic = path.starts_with("/classic/");
    path.remove_prefix(classic ? 8 : 0);
    size_t index = 0;
    const std::string_view prefix = "/host/";
    if (!path.starts_with(prefix)) {
      return serve::make_response(404, "/host/I/metrics, /classic/host/I/metrics, /sd, /sd/classic, /truth");
    }
    path.remove_prefix(prefix.size());
    const auto [end, error] = std::from_chars(path.data(), path.data() + path.size(), index);
    if (error != std::errc{} || std::string_view(end, path.data() + path.size()) != "/metrics" ||
        index >= hosts_.size()) {
      return serve::make_response(404, "no such host");
    }
    const serve::Format format = classic ? serve::Format::text : serve::negotiate(request.header("accept"));
    return {.type = serve::content_type(format),
            .body = std::make_shared<const std::string>(serve::encode(expose(index), format))};
  }

 private:
  static Response json(std::string text) {
    Response response = serve::make_response(200, std::move(text));
    response.type = "application/json";
    return response;
  }

  [[nodiscard]] std::string targets(const std::string& address, const std::string& prefix) const {
    auto out = nlohmann::json::array();
    for (size_t i = 0; i < hosts_.size(); ++i) {
      out.push_back({{"targets", {address}},
                     {"labels",
                      {{"__metrics_path__", fmt::format("{}/host/{}/metrics", prefix, i)},
                       {"instance", fmt::format("host-{}", i)}}}});
    }
    return out.dump();
  }

  std::mutex mutex_;  // the pusher has a thread of its own
  Options options_;
  std::vector<uint32_t> truth_;
  std::vector<std::unique_ptr<Host>> hosts_;
};

/// The first host of a fleet, pushed until the object goes.
class Pushed {
 public:
  Pushed(Fleet& fleet, const Options& options, serve::Url url)
      : pusher_({.url = std::move(url),
                 .delta = options.otlp_delta,
                 .interval_ms = options.otlp_interval_ms,
                 .resource = {.host = "host-0", .version = "simulated"}},
                snapshots_),
        maker_([this, &fleet] { make(fleet); }),
        sender_([this] { pusher_.run(stop_.get()); }) {}
  ~Pushed() {
    eventfd_write(stop_.get(), 1);
    sender_.join();
    maker_.join();
    const serve::Own::Push counts = pusher_.counts();
    std::cout << nlohmann::ordered_json{{"sent", counts.sent},
                                        {"failed", counts.failed},
                                        {"dropped", counts.dropped},
                                        {"queued", counts.queued},
                                        {"queue_bytes", counts.queue_bytes}}
              << std::endl;
  }
  Pushed(const Pushed&) = delete;
  Pushed& operator=(const Pushed&) = delete;

 private:
  void make(Fleet& fleet) {
    for (;;) {
      std::array<pollfd, 2> fds{{{.fd = snapshots_.wanted_fd(), .events = POLLIN, .revents = 0},
                                 {.fd = stop_.get(), .events = POLLIN, .revents = 0}}};
      poll(fds.data(), fds.size(), -1);
      if (fds[1].revents != 0) {
        return;
      }
      snapshots_.publish(fleet.expose(0));
    }
  }

  serve::Snapshots snapshots_;
  serve::Pusher pusher_;
  Fd stop_{eventfd(0, EFD_CLOEXEC)};
  std::thread maker_, sender_;
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("expositions of simulated hosts, and the truth about them");
  app.add_option("--hosts", options.hosts);
  app.add_option("--seed", options.seed);
  app.add_option("--listen", options.listen, "ADDRESS:PORT; port 0: any, printed");
  app.add_option("--purges", options.purges, "of each host before the first scrape");
  app.add_option("--rate", options.rate, "purges per second of each host after that");
  app.add_option("--processes", options.processes, "of each host");
  app.add_option("--connections", options.connections, "at most, at a time");
  app.add_option("--otlp", options.otlp, "push the first host to this URL");
  app.add_flag("--otlp-delta", options.otlp_delta);
  app.add_option("--otlp-interval", options.otlp_interval_ms, "in ms");
  app.add_flag("--nasty", options.nasty, "names that an attacker would choose");
  CLI11_PARSE(app, argc, argv);

  signal(SIGPIPE, SIG_IGN);
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  sigprocmask(SIG_BLOCK, &ends, nullptr);
  const Fd stop(signalfd(-1, &ends, SFD_CLOEXEC));

  const auto address = serve::parse_address(options.listen);
  auto listener = address ? serve::listen_on(*address) : tl::unexpected(address.error());
  if (!listener) {
    std::cerr << listener.error().message() << '\n';
    return 1;
  }
  Fleet fleet(options);
  std::optional<Pushed> pushed;
  if (!options.otlp.empty()) {
    auto url = serve::parse_url(options.otlp);
    if (!url) {
      std::cerr << url.error().message() << '\n';
      return 1;
    }
    pushed.emplace(fleet, options, std::move(*url));
  }
  std::cout << "listening on " << listener->address << std::endl;
  serve::Server server(std::move(listener->socket), nullptr, {.connections = options.connections},
                       [&](const Request& request) { return fleet(request); });
  server.run(stop.get());
  pushed.reset();
  std::cout << fleet.truth() << std::endl;
}
