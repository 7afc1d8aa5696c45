#include "sample/host.hpp"

#include "sample/cgroup.hpp"
#include "sample/fields.hpp"

namespace jemtrace::sample {

std::string_view chosen_word(std::string_view text) {
  const size_t open = text.find('[');
  const size_t close = text.find(']', open == std::string_view::npos ? 0 : open);
  return open == std::string_view::npos || close == std::string_view::npos
             ? std::string_view()
             : text.substr(open + 1, close - open - 1);
}

ledger::Host read_host(const ProcRoot& proc, const std::string& sys) {
  ledger::Host out;
  if (const auto vmstat = read_file(proc.path() + "/vmstat", size_t{1} << 20)) {
    out.pglazyfree = counter(*vmstat, "pglazyfree");
    out.pglazyfreed = counter(*vmstat, "pglazyfreed");
    out.pgsteal_file = counter(*vmstat, "pgsteal_file");
    out.pgscan_kswapd = counter(*vmstat, "pgscan_kswapd");
    out.pgscan_direct = counter(*vmstat, "pgscan_direct");
    out.workingset_refault_file = counter(*vmstat, "workingset_refault_file");
    out.thp_collapse_alloc = counter(*vmstat, "thp_collapse_alloc");
    out.thp_split_page = counter(*vmstat, "thp_split_page");
    out.thp_deferred_split_page = counter(*vmstat, "thp_deferred_split_page");
  }
  if (const auto meminfo = read_file(proc.path() + "/meminfo", 65536)) {
    out.mem_total_bytes = field_bytes(*meminfo, "MemTotal:");
    out.mem_available_bytes = field_bytes(*meminfo, "MemAvailable:");
  }
  if (const auto pressure = read_file(proc.path() + "/pressure/memory", 4096)) {
    out.pressure = parse_pressure(*pressure);
  }
  const std::string thp = sys + "/kernel/mm/transparent_hugepage";
  if (const auto enabled = read_file(thp + "/enabled", 4096)) {
    out.thp = chosen_word(*enabled);
  }
  if (const auto gauge = read_file(thp + "/hugepages-2048kB/stats/nr_anon_partially_mapped", 64)) {
    out.nr_anon_partially_mapped = number_at(*gauge);
  }
  return out;
}

}  // namespace jemtrace::sample
