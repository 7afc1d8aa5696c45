#include "serve/pages.hpp"

namespace jemtrace::serve {
namespace {

constexpr uint64_t max_age_ms = 250;   // of a snapshot
constexpr uint64_t patience_ms = 250;  // while the tracer looks at a new file, the last snapshot has to do
constexpr const char* stuck = "jemtrace has not answered itself for minutes: it is stuck";

}  // namespace

std::array<uint64_t, format_count> Pages::scrapes() const {
  std::array<uint64_t, format_count> counts{};
  for (size_t i = 0; i < counts.size(); ++i) {
    counts[i] = scrapes_[i];
  }
  return counts;
}

Response Pages::metrics(const Request& request) {
  if (!token_.empty() && !token_matches(request.header("authorization"), token_)) {
    Response refusal = make_response(401, "a bearer token is needed");
    refusal.headers.emplace_back("WWW-Authenticate", "Bearer");
    return refusal;
  }
  const Format format = negotiate(request.header("accept"));
  auto body = snapshots_.get_encoded(format, max_age_ms, patience_ms);
  if (!body) {
    return make_response(503, snapshots_.stuck() ? stuck : "tracing has not begun yet");
  }
  scrapes_[static_cast<size_t>(format)] += 1;
  return {
      .status = 200, .type = content_type(format), .body = std::move(body), .headers = {{"Vary", "Accept"}}};
}

Response Pages::start_page() const {
  static const std::string head =
      "<!doctype html><html lang=en><meta charset=utf-8><title>jemtrace</title><h1>jemtrace ";
  Response page = make_response(
      200, head + version_ +
               "</h1><p>What jemalloc holds and gives back, for every process on this host.<ul>"
               "<li><a href=/metrics>/metrics</a>: for Prometheus, in the format it asks for"
               "<li><a href=/-/healthy>/-/healthy</a>, <a href=/-/ready>/-/ready</a></ul></html>");
  page.type = "text/html; charset=utf-8";
  return page;
}

Response Pages::operator()(const Request& request) {
  if (request.path == "/metrics") {
    return metrics(request);
  }
  if (request.path == "/-/healthy") {
    return snapshots_.stuck() ? make_response(503, stuck) : make_response(200, "healthy");
  }
  if (request.path == "/-/ready") {
    constexpr uint64_t any_age_ms = ~uint64_t{0} / 1'000'000;
    return snapshots_.get(any_age_ms, 0) ? make_response(200, "ready") : make_response(503, "not yet");
  }
  if (request.path == "/") {
    return start_page();
  }
  return make_response(404, "there is nothing here; /metrics is");
}

}  // namespace jemtrace::serve
