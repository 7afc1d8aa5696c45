#include "locate/image.hpp"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <limits>
#include <map>

#include "locate/call_sites.hpp"
#include "locate/conf_symbols.hpp"
#include "locate/eh_frame.hpp"
#include "locate/elf_file.hpp"
#include "locate/layout.hpp"
#include "locate/prologue.hpp"
#include "locate/recover/find_structures.hpp"
#include "locate/recover/recover.hpp"
#include "locate/roles.hpp"
#include "locate/strings.hpp"
#include "locate/symbols.hpp"
#include "locate/version.hpp"
#include "util/file.hpp"

namespace jemtrace::locate {
namespace {

constexpr uint64_t max_dynamic = 64 << 10;
constexpr uint64_t max_dynamic_strings = uint64_t{64} << 20;
constexpr uint64_t prologue_size = 96;  // endbr64 and seven instructions

/// What PT_DYNAMIC says about the kind of file.
struct Dynamic {
  bool soname = false;
  bool pie = false;  // DF_1_PIE: a program, static-pie included
  bool musl = false;
};

Dynamic read_dynamic(const ElfFile& file) {
  Dynamic dynamic;
  for (const Elf64_Phdr& segment : file.segments()) {
    const auto bytes = segment.p_type == PT_DYNAMIC
                           ? file.read(segment.p_offset, segment.p_filesz, max_dynamic)
                           : Result<Bytes>(Bytes{});
    uint64_t strings = 0;
    uint64_t strings_size = 0;
    std::vector<uint64_t> needed;
    for (uint64_t at = 0; bytes && at + sizeof(Elf64_Dyn) <= bytes->size(); at += sizeof(Elf64_Dyn)) {
      Elf64_Dyn entry;
      std::memcpy(&entry, bytes->data() + at, sizeof entry);
      switch (entry.d_tag) {
        case DT_SONAME:
          dynamic.soname = true;
          break;
        case DT_FLAGS_1:
          dynamic.pie = (entry.d_un.d_val & DF_1_PIE) != 0;
          break;
        case DT_NEEDED:
          needed.push_back(entry.d_un.d_val);
          break;
        case DT_STRTAB:
          strings = entry.d_un.d_ptr;
          break;
        case DT_STRSZ:
          strings_size = entry.d_un.d_val;
          break;
        default:
          break;
      }
    }
    if (!needed.empty()) {
      if (const auto table = file.read_vaddr(strings, strings_size, max_dynamic_strings)) {
        dynamic.musl = std::any_of(needed.begin(), needed.end(), [&](uint64_t name) {
          return string_at(*table, name).starts_with("libc.musl");
        });
      }
    }
  }
  return dynamic;
}

Linkage linkage_of(const ElfFile& file, const Dynamic& dynamic) {
  const bool program =
      file.header().e_type == ET_EXEC || dynamic.pie || (!file.interpreter().empty() && !dynamic.soname);
  return program ? Linkage::static_linked : Linkage::shared;
}

bool is_musl(const ElfFile& file, const Dynamic& dynamic, const Strings& strings, Linkage linkage) {
  const std::string interpreter = file.interpreter();
  if (!interpreter.empty()) {
    return interpreter.find("ld-musl") != std::string::npos;
  }
  return linkage == Linkage::shared ? dynamic.musl : strings.musl;
}

TextSegment text_of(const Elf64_Phdr& segment) {
  return {segment.p_vaddr, segment.p_offset, segment.p_filesz};
}

/// The executable PT_LOAD that holds `vaddr`; for an unknown address the largest one.
TextSegment text_segment(const ElfFile& file, uint64_t vaddr) {
  const Elf64_Phdr* best = vaddr != 0 && file.executable(vaddr) ? file.segment_of(vaddr) : nullptr;
  for (const Elf64_Phdr& segment : file.segments()) {
    const bool candidate = segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0;
    if (candidate && (best == nullptr || (vaddr == 0 && segment.p_filesz > best->p_filesz))) {
      best = &segment;
    }
  }
  return best == nullptr ? TextSegment{} : text_of(*best);
}

/// As the kernel computes mm->start_code: the lowest p_vaddr of an executable PT_LOAD.
uint64_t lowest_code(const ElfFile& file) {
  uint64_t lowest = std::numeric_limits<uint64_t>::max();
  for (const Elf64_Phdr& segment : file.segments()) {
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0) {
      lowest = std::min(lowest, segment.p_vaddr);
    }
  }
  return lowest == std::numeric_limits<uint64_t>::max() ? 0 : lowest;
}

/// The functions that can be entered under a role's name, one per address.
std::vector<const Function*> entries_of(const Symbols& symbols, std::string_view role) {
  std::vector<const Function*> found;
  for (const Function& function : symbols.functions) {
    const bool known = std::any_of(found.begin(), found.end(),
                                   [&](const Function* f) { return f->vaddr == function.vaddr; });
    if (function.entry->role == role && function.variant != Variant::cold && !known) {
      found.push_back(&function);
    }
  }
  return found;
}

/// The one function to probe for a role; null when there is none or the choice is open.
const Function* sole_entry(const Symbols& symbols, std::string_view role) {
  std::vector<const Function*> entries = entries_of(symbols, role);
  // When a compiler split off the working part, the rest only tests whether there is work and jumps there.
  const auto is_part = [](const Function* f) { return f->variant == Variant::part; };
  if (std::count_if(entries.begin(), entries.end(), is_part) == 1) {
    return *std::find_if(entries.begin(), entries.end(), is_part);
  }
  return entries.size() == 1 ? entries.front() : nullptr;
}

void add_roles(const ElfFile& file, const Symbols& symbols, Image& image) {
  for (const Function& function : symbols.functions) {
    const auto offset = file.file_offset(function.vaddr);
    if (function.entry->jemalloc && function.variant != Variant::cold && offset) {
      image.roles.push_back({std::string(function.entry->role), function.symbol, function.vaddr, *offset,
                             function.size, function.found_by, function.evidence});
    }
  }
}

struct ProbePlan {
  jt_role role;
  std::string_view name;
  uint8_t cache_arg[2];
};

/// What to probe, and in which arguments the cache may be, best first.
std::vector<ProbePlan> probe_plans(Family family) {
  // pac_decay_to_limit(tsdn, pac, decay, decay_stats, ecache, ...): rustc's build without statistics lost
  // decay_stats. arena_decay_to_limit(tsdn, arena, decay, extents, ...): tsdn only serves the mutexes, LTO
  // may drop it.
  const bool pac = family >= Family::v53;
  const ProbePlan sweep = pac ? ProbePlan{JT_ROLE_SWEEP, sweep_role(family), {5, 4}}
                              : ProbePlan{JT_ROLE_SWEEP, sweep_role(family), {4, 3}};
  return {sweep, {JT_ROLE_EVICT, evict_role(family), {4, 0}}};
}

void add_probe(const ElfFile& file, const Symbols& symbols, const ProbePlan& plan, Image& image) {
  const Function* function = sole_entry(symbols, plan.name);
  if (function == nullptr) {
    if (!entries_of(symbols, plan.name).empty()) {
      image.notes.push_back("several functions are called " + std::string(plan.name) +
                            ": none of them is probed");
    }
    return;
  }
  const auto offset = file.file_offset(function->vaddr);
  const uint64_t size = function->size == 0 ? prologue_size : std::min(function->size, prologue_size);
  const auto code = file.read_vaddr(function->vaddr, size, prologue_size);
  const auto point = code && file.executable(function->vaddr) ? choose_probe(*code) : std::nullopt;
  if (!offset || !point) {
    image.notes.push_back("the code of " + std::string(plan.name) + " cannot be read: it is not probed");
    return;
  }
  ProbeSite probe{std::string(plan.name), *offset + point->offset, point->cost, point->instruction, {}};
  probe.site.role = static_cast<uint8_t>(plan.role);
  probe.site.cache_arg[0] = plan.cache_arg[0];
  probe.site.cache_arg[1] = plan.cache_arg[1];
  image.probes.push_back(std::move(probe));
}

void add_call_sites(const ElfFile& file, const CallFrames* frames, const Symbols& symbols, Image& image) {
  if (frames == nullptr) {
    image.notes.push_back("no call frame information: the purpose of system calls stays open");
    return;
  }
  image.call_sites = find_call_sites(file, symbols, *frames);
}

void add_missing(const Symbols& symbols, Family family, Image& image) {
  for (const std::string_view role : wanted_roles(family)) {
    if (entries_of(symbols, role).empty()) {
      image.missing.emplace_back(role);
    }
  }
}

/// What was recovered, in the shape of a symbol table.
Symbols as_symbols(const recover::Recovered& recovered) {
  Symbols symbols;
  for (const recover::RecoveredFunction& function : recovered.functions) {
    if (const RoleEntry* entry = find_role(function.role)) {
      symbols.functions.push_back({"", "", entry, Variant::plain, function.vaddr,
                                   function.pieces.front().size, "recovered", function.evidence});
    }
  }
  return symbols;
}

std::vector<CallSite> as_call_sites(const ElfFile& file, const CallFrames& frames,
                                    const std::vector<recover::RecoveredSite>& sites) {
  std::vector<CallSite> found;
  for (const recover::RecoveredSite& site : sites) {
    const auto offset = file.file_offset(site.return_vaddr - 1);
    const auto rule = frames.rule_at(site.vaddr);
    if (offset) {
      found.push_back({*offset + 1, site_at(site.purpose, site.cause, rule.value_or(FrameRule{}))});
    }
  }
  return found;
}

/// The table of layouts holds for builds with 4 kB pages: the code has to agree.
void check_layout(const ElfFile& file, const Symbols& symbols, Family family, Image& image) {
  constexpr uint64_t most = 64 << 10;
  for (const std::string_view role : {evict_role(family), sweep_role(family)}) {
    const Function* function = sole_entry(symbols, role);
    const auto code =
        function == nullptr ? Result<Bytes>(Bytes{}) : file.read_vaddr(function->vaddr, function->size, most);
    if (code && uses_displacement(*code, image.cache_state_offset)) {
      return;
    }
  }
  image.notes.emplace_back(
      "where a cache keeps its state was not seen in the code: it is tested at run time");
}

/// Without the symbols that matter: what the code itself gives away.
void use_recovery(const ElfFile& file, const CallFrames* frames, const recover::Survey& survey, Family family,
                  bool any_private, Image& image) {
  const recover::Recovered recovered = recover::recover(survey, family);
  const Symbols symbols = as_symbols(recovered);
  add_missing(symbols, family, image);
  if (recovered.sites.empty() || frames == nullptr) {
    image.notes.emplace_back(any_private ? "the symbols lack the functions of a decay pass"
                             : frames    ? "stripped: no function inside jemalloc has a symbol; purges are "
                                           "recognised by their system calls alone"
                                      : "stripped, and without call frame information: purges are recognised "
                                        "by their system calls alone");
    return;
  }
  image.tier = recovered.sweep ? Tier::recovered : Tier::callsite;
  if (const auto* handler = survey.tree.node("epoch"); handler != nullptr && handler->handler != 0) {
    image.text = text_segment(file, handler->handler);
  }
  add_roles(file, symbols, image);
  for (const ProbePlan& plan : probe_plans(family)) {
    add_probe(file, symbols, plan, image);
  }
  check_layout(file, symbols, family, image);
  image.call_sites = as_call_sites(file, *frames, recovered.sites);
  image.notes.emplace_back(recovered.sweep
                               ? "stripped: functions inside jemalloc were recovered from its code"
                               : "stripped: the function of a decay pass was not recovered; calls are told "
                                 "apart by where they are made");
}

/// What the symbols make possible.
void use_symbols(const ElfFile& file, const CallFrames* frames, const Symbols& symbols, Family family,
                 Image& image) {
  add_missing(symbols, family, image);
  image.tier = Tier::symbols;
  add_roles(file, symbols, image);
  for (const ProbePlan& plan : probe_plans(family)) {
    add_probe(file, symbols, plan, image);
  }
  add_call_sites(file, frames, symbols, image);
}

/// The array of arenas as the code shows it, and as the symbols say: both have to agree.
void check_arenas(const Symbols& symbols, Structures& structures) {
  if (symbols.arenas == 0 || structures.arenas == symbols.arenas) {
    return;
  }
  if (structures.arenas) {
    structures.arenas.reset();
    structures.missing.emplace_back("arenas: the code does not use what the symbols call so");
  } else {
    structures.arenas = symbols.arenas;
    structures.evidence.emplace_back("arenas is a symbol");
  }
}

void look_inside(const ElfFile& file, const Symbols& symbols, Family family, Image& image) {
  const CacheFields layout = cache_layout(file, symbols, family);
  image.cache_state_offset = layout.state_offset;
  image.cache_ind_offset = layout.ind_offset;
  const auto read = CallFrames::read(file);
  const CallFrames* const frames = read ? &*read : nullptr;
  const recover::Survey survey = frames == nullptr ? recover::Survey{} : recover::Survey::make(file, *frames);
  const bool sweep = !entries_of(symbols, sweep_role(family)).empty();
  const bool evict = !entries_of(symbols, evict_role(family)).empty();
  if (sweep || evict) {
    use_symbols(file, frames, symbols, family, image);
  } else {
    use_recovery(file, frames, survey, family, symbols.any_private, image);
  }
  image.structures = recover::find_structures(file, survey, family);
  if (image.structures) {
    check_arenas(symbols, *image.structures);
  }
}

uint64_t address_inside(const Symbols& symbols) {
  for (const Function& function : symbols.functions) {
    if (function.entry->jemalloc && function.entry->purpose == JT_PURGE_SWEEP) {
      return function.vaddr;
    }
  }
  return symbols.public_vaddr;
}

void describe_file(const ElfFile& file, const Strings& strings, Image& image) {
  const Dynamic dynamic = read_dynamic(file);
  image.build_id = file.build_id();
  image.linkage = linkage_of(file, dynamic);
  image.musl = is_musl(file, dynamic, strings, image.linkage);
  image.exe_code_vaddr = lowest_code(file);
}

/// Says which jemalloc it is, as far as the strings tell.
Family describe_version(const Strings& strings, Image& image) {
  const Family by_features = family_of_features(strings.features);
  image.version = choose_version(strings, by_features);
  const Family family = family_of(image.version, by_features);
  if (!image.version.known()) {
    image.notes.push_back(
        std::string("the build does not know its version; its options are those of jemalloc ") +
        name(family));
  }
  return family;
}

/// Built from sources without .git and VERSION: "0.0.0-0-g000000missing_version_try_git_fetch_tags", up
/// to 5.2 zeros.
bool lacks_version(const Strings& strings) {
  return std::any_of(strings.versions.begin(), strings.versions.end(), [](const Strings::Candidate& version) {
    return version.text.starts_with("0.0.0-0-g000000");
  });
}

bool wants_symbols(const ElfFile& file, Family family, Image& image) {
  if (family == Family::v4) {
    image.notes.emplace_back("jemalloc 4.x or older decays in another way: only its system calls are shown");
    return false;
  }
  if (!file.x86_64()) {
    image.notes.push_back("its code is not x86-64 (ELF machine " + std::to_string(file.header().e_machine) +
                          "): only its system calls are shown");
    return false;
  }
  return true;
}

/// A file that is no 64-bit little-endian ELF: the strings have to do. Its text stays empty: system calls of
/// 32-bit programs pass no tracepoint (ARCH_TRACE_IGNORE_COMPAT_SYSCALLS), so nothing is known of its
/// processes.
std::optional<Image> analyse_strings_only(const Strings& strings, const std::string& why) {
  Image image;
  describe_version(strings, image);
  if (!image.version.known()) {
    return std::nullopt;
  }
  image.notes.push_back(why + ", whose processes are neither traced nor read");
  return image;
}

/// The parts worth scanning: what gets mapped; all of a file whose headers are not understood.
std::vector<ElfFile::Range> ranges_of(const Result<ElfFile>& file, int fd, uint64_t limit) {
  if (file) {
    return file->loaded_ranges();
  }
  const off_t end = ::lseek(fd, 0, SEEK_END);
  return {{0, std::min<uint64_t>(end > 0 ? static_cast<uint64_t>(end) : 0, limit)}};
}

}  // namespace

std::string Image::conf_variable() const {
  std::string variable = symbol_prefix + "malloc_conf";
  std::transform(variable.begin(), variable.end(), variable.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return variable;
}

Result<std::optional<Image>> analyse(int fd, const std::string& path, const Options& options) {
  const auto file = ElfFile::open(fd, path, options.max_file_size);
  if (!file && file.error().code != Errc::unsupported) {
    return tl::unexpected<Error>(file.error());
  }
  ASSIGN_OR_RETURN(const Strings strings, read_strings(fd, ranges_of(file, fd, options.max_file_size)));
  if (!strings.may_be_jemalloc()) {
    return std::optional<Image>();
  }
  if (!file) {
    return analyse_strings_only(strings, file.error().what);
  }

  Image image;
  describe_file(*file, strings, image);
  const Family family = describe_version(strings, image);
  const Symbols symbols = read_symbols(*file, image.build_id, options, image.notes);
  // A tool that talks about jemalloc has its words too; a jemalloc also has functions, or a version, or says
  // that it has none.
  if (!image.version.known() && !symbols.public_api && !symbols.any_private && !lacks_version(strings)) {
    return std::optional<Image>();
  }
  image.symbol_prefix = symbols.public_prefix;
  image.mallctl_vaddr = file->executable(symbols.public_vaddr) ? symbols.public_vaddr : 0;
  for (const auto& [name, vaddr] : symbols.api) {
    if (file->executable(vaddr)) {
      image.api.emplace(name, vaddr);
    }
  }
  image.conf_variables = find_conf_variables(*file);
  image.text = text_segment(*file, address_inside(symbols));
  if (wants_symbols(*file, family, image)) {
    look_inside(*file, symbols, family, image);
  }
  return std::optional<Image>(std::move(image));
}

const char* name(Tier tier) {
  switch (tier) {
    case Tier::symbols:
      return "symbols";
    case Tier::recovered:
      return "recovered";
    case Tier::callsite:
      return "callsite";
    case Tier::syscall:
      return "syscall";
  }
  return "syscall";
}

const char* name(Linkage linkage) {
  return linkage == Linkage::shared ? "shared" : "static";
}

const char* name(CostClass cost) {
  return cost == CostClass::emulated ? "emulated" : "single_step";
}

}  // namespace jemtrace::locate
