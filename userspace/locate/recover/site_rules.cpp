#include "locate/recover/site_rules.hpp"
namespace jemtrace::locate::recover {
std::vector<RecoveredSite> find_sites(const Subject&, const Findings&) {
  return {};
}
}  // namespace jemtrace::locate::recover
