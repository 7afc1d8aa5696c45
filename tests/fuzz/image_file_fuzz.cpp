// Any bytes as an encoded image: refused, or understood in the one way that writing it again leads to.
// With WRITE_SEED=FILE it writes an image there to start from.
#include <cstdlib>
#include <fstream>

#include "locate/image_file.hpp"

namespace {

using namespace jemtrace;

locate::Image seed() {
  locate::Image image;
  image.build_id = "0123456789abcdef";
  image.version = {5, 3, 0, "5.3.0-0-g54eaed1d"};
  image.symbol_prefix = "je_";
  image.tier = locate::Tier::symbols;
  image.text = {0x1000, 0x1000, 0x4000};
  image.roles = {{"ecache_evict", "je_ecache_evict", 0x1100, 0x1100, 64, "symtab"}};
  image.missing = {"extent_record"};
  locate::ProbeSite probe{"ecache_evict", 0x1100, locate::CostClass::emulated, "push r15", {}};
  probe.site.role = JT_ROLE_EVICT;
  image.probes = {probe};
  locate::CallSite call;
  call.return_offset = 0x1200;
  image.call_sites = {call};
  image.notes = {"a note"};
  return image;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  if (const char* to = std::getenv("WRITE_SEED")) {
    std::ofstream(to) << encode(locate::Outcome(seed()));
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto outcome = locate::decode({reinterpret_cast<const char*>(data), size});
  if (outcome) {
    const std::string bytes = encode(*outcome);
    const auto again = locate::decode(bytes);
    if (!again || encode(*again) != bytes) {
      std::abort();
    }
  }
  return 0;
}
