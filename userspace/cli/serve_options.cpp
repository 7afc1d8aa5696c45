#include "cli/serve_options.hpp"

#include "serve/http_client.hpp"
#include "serve/server.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {

void add_serve_options(CLI::App& app, RawServe& raw) {
  app.add_option("--listen", raw.listen, "where to serve [127.0.0.1:9738]; port 0: any")
      ->type_name("ADDR:PORT");
  app.add_option("--token-file", raw.token_file, "who wants /metrics must send the token in this file")
      ->type_name("FILE");
  app.add_option("--tls-cert", raw.tls_certificate, "serve by TLS with this certificate chain, in PEM")
      ->type_name("FILE");
  app.add_option("--tls-key", raw.tls_key, "its private key, in PEM")->type_name("FILE");
  app.add_flag("--insecure", raw.insecure, "listen elsewhere than on loopback without a token or TLS");
  app.add_option("--max-targets", raw.max_targets,
                 "pairs of name and cgroup with series of their own; all others are \"other\" [500]")
      ->type_name("N")
      ->check(CLI::Range(1, 16384));
  app.add_flag("--pid-label", raw.pid_label,
               "series for each process: many, where processes are short-lived");
  CLI::Option* otlp =
      app.add_option("--otlp", raw.otlp,
                     "also push to this OpenTelemetry collector (http://HOST:4318/v1/metrics)")
          ->type_name("URL");
  app.add_option("--otlp-temporality", raw.temporality, "cumulative, or delta: what came since the last push")
      ->check(CLI::IsMember({"cumulative", "delta"}))
      ->capture_default_str()
      ->needs(otlp);
  app.add_option("--otlp-interval", raw.otlp_interval, "time between two pushes [60s]")
      ->type_name("DUR")
      ->needs(otlp);
}

Result<ServeOptions> check_serve(const RawServe& raw) {
  ServeOptions options;
  if (!raw.listen.empty()) {
    TRY(serve::parse_address(raw.listen));
    options.listen = raw.listen;
  }
  options.token_file = raw.token_file;
  options.tls_certificate = raw.tls_certificate;
  options.tls_key = raw.tls_key;
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    return fail(Errc::usage, "--tls-cert and --tls-key belong together");
  }
  options.insecure = raw.insecure;
  options.max_targets = raw.max_targets;
  options.pid_label = raw.pid_label;
  options.otlp = raw.otlp;
  options.otlp_delta = raw.temporality == "delta";
  if (!raw.otlp.empty()) {
    TRY(serve::parse_url(raw.otlp));
  }
  if (!raw.otlp_interval.empty()) {
    ASSIGN_OR_RETURN(options.otlp_interval, parse_duration(raw.otlp_interval));
  }
  return options;
}

}  // namespace jemtrace::cli
