#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "jemtrace/abi.h"
#include "locate/structures.hpp"
#include "util/fd.hpp"
#include "util/result.hpp"

/// What an ELF file holds of jemalloc: version, functions, the instructions to probe, the call sites to
/// recognise.
namespace jemtrace::locate {

enum class Tier { symbols, recovered, callsite, syscall };
enum class Linkage { shared, static_linked };

/// What a uprobe costs at an instruction: emulated (push, nop: 0.6 us measured) or executed out of line with
/// a single step (endbr64, sub, mov, test: up to 16 us in a virtual machine).
enum class CostClass { emulated, single_step };

/// "5.3.0-0-g54eaed1d..." taken apart. All 0 when the build did not know its own version
/// ("0.0.0-0-g000000missing").
struct Version {
  int major = 0, minor = 0, patch = 0;
  std::string text;  // as found; empty when unknown
  [[nodiscard]] bool known() const { return major != 0; }
};

/// A function of jemalloc that means something to the tracer, found in this image.
struct FoundRole {
  std::string role;      // jemalloc's name without prefix and suffix: "ecache_evict"
  std::string symbol;    // as spelled in the image: "je_ecache_evict", "pac_decay_to_limit.part.0"
  uint64_t vaddr = 0;    // as linked
  uint64_t offset = 0;   // in the file
  uint64_t size = 0;     // bytes
  std::string found_by;  // "symtab", "dynsym", "debuglink", "build-id", "minidebuginfo", "recovered"
  std::vector<std::string> evidence;  // recovered: the facts that agree, for people
};

/// An instruction to put a uprobe on.
struct ProbeSite {
  std::string role;
  uint64_t offset = 0;  // in the file: of the instruction chosen, which may lie behind endbr64
  CostClass cost = CostClass::single_step;
  std::string instruction;  // "push r15", for people
  jt_site site{};           // role, cache_arg
};

/// A call instruction inside jemalloc: its return address and how to step over the frame of its function.
struct CallSite {
  uint64_t return_offset = 0;  // in the file
  jt_site site{};
};

/// A `const char *` in which the program says its settings.
struct ConfVariable {
  std::string name;    // "malloc_conf", "malloc_conf_2_conf_harder"
  uint64_t vaddr = 0;  // as linked: of the variable, or of the word of the GOT that points to it
  bool through_got = false;
};

struct TextSegment {
  uint64_t vaddr = 0, offset = 0, size = 0;
};

struct Image {
  std::string build_id;  // hex; empty when the file has none
  Version version;
  std::string
      symbol_prefix;  // of the public API: "", "je_", "_rjem_"; its environment variable follows from it
  Linkage linkage = Linkage::shared;
  Tier tier = Tier::syscall;
  bool musl = false;                    // its system call wrappers come from musl, with a frame of one word
  TextSegment text;                     // the executable PT_LOAD that holds jemalloc
  uint64_t exe_code_vaddr = 0;          // lowest p_vaddr of an executable PT_LOAD
  uint64_t mallctl_vaddr = 0;           // as linked; 0: no symbol names it
  std::map<std::string, uint64_t> api;  // as linked, by unprefixed name: mallctlbymib and its like
  std::vector<ConfVariable> conf_variables;
  std::vector<FoundRole> roles;
  std::vector<std::string> missing;  // wanted for this version, not found
  std::vector<ProbeSite> probes;
  std::vector<CallSite> call_sites;
  uint32_t cache_state_offset = 0, cache_ind_offset = 0;  // jt_image
  std::optional<Structures> structures;                   // nullopt: unknown
  std::vector<std::string> notes;                         // what a user should know, one sentence each

  /// "MALLOC_CONF", "JE_MALLOC_CONF", "_RJEM_MALLOC_CONF".
  [[nodiscard]] std::string conf_variable() const;
};

/// Where separate debug files are looked for; tests point it at a folder.
struct Options {
  std::string debug_root = "/usr/lib/debug";
  uint64_t max_file_size = uint64_t{4} << 30;
  /// How a debug file is opened. Empty: as any file. A process that cannot open files asks another one.
  std::function<Result<Fd>(const std::string& path)> open_debug_file;
};

/// True when the file may hold a jemalloc: a bounded scan for its strings, for use on every mapped file of a
/// host, with all privileges. Reads what gets mapped once, at most `max_file_size` bytes, and understands
/// nothing of the file but the table of its segments.
Result<bool> may_hold_jemalloc(int fd, const Options& options = {});

/// All there is to know about the image. nullopt: there is no jemalloc in it. The file is hostile: all sizes
/// are bounded, all failures are values. `path` is only for messages.
Result<std::optional<Image>> analyse(int fd, const std::string& path, const Options& options = {});

const char* name(Tier tier);        // "symbols", ...
const char* name(Linkage linkage);  // "shared", "static"
const char* name(CostClass cost);   // "emulated", "single_step"

}  // namespace jemtrace::locate
