#include "read/call/caller.hpp"

#include <fmt/format.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <thread>

#include "util/text.hpp"

namespace jemtrace::read {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t small_file = 65536;
constexpr size_t max_stack = size_t{8} << 20;
constexpr size_t least_stack = 512 * sizeof(uint64_t);  // known of it, or it is refused
constexpr uint64_t red_zone = 128;
constexpr uint64_t stack_for_call = 64 << 10;  // what mallctl may need below
constexpr size_t max_threads = 256;            // looked at in one round
constexpr size_t max_returns = 65536;          // code addresses on a stack
constexpr size_t max_text = 1 << 20;

constexpr uint64_t align_up(uint64_t value, uint64_t to) {
  return (value + to - 1) / to * to;
}

/// A request as it lies on the thread's stack.
struct Block {
  std::vector<uint8_t> bytes;
  uint64_t name = 0, old_value = 0, old_size = 0, new_value = 0;
};

size_t block_size(const Request& request) {
  return align_up(request.name.size() + 1, 16) + 48 + align_up(request.text.size() + 1, 16);
}

Block lay_out(const Request& request, uint64_t at) {
  Block block;
  block.bytes.resize(block_size(request));
  block.name = at;
  block.old_value = at + align_up(request.name.size() + 1, 16);
  block.old_size = block.old_value + 16;
  block.new_value = block.old_value + 32;
  const uint64_t text = block.old_value + 48;
  const auto put = [&](uint64_t address, const void* from, size_t size) {
    std::memcpy(block.bytes.data() + (address - at), from, size);
  };
  put(block.name, request.name.c_str(), request.name.size() + 1);
  const uint64_t size = request.size;
  put(block.old_size, &size, sizeof size);
  uint64_t value = request.text.empty() ? request.value : text;
  if (request.with_callback) {
    value = Tracee::callback_address();  // write_cb_packet_t: the function, then its argument, 0
  }
  put(block.new_value, &value, sizeof value);
  put(text, request.text.c_str(), request.text.size() + 1);
  return block;
}

std::vector<pid_t> threads_of(const ProcRoot& proc, pid_t pid) {
  // The main thread first: it has used jemalloc, and the programs are rare that end it early.
  std::vector<pid_t> tids = {pid};
  const auto all = ProcRoot(proc.of(pid, "task")).pids();
  for (const pid_t tid : all.value_or(std::vector<pid_t>{})) {
    if (tid != pid && tids.size() < max_threads) {
      tids.push_back(tid);
    }
  }
  return tids;
}

/// A child between vfork and exec: its memory is its parent's, who waits for it.
bool shares_memory_with_parent(const ProcRoot& proc, pid_t pid) {
  const auto status = proc.read(pid, "status", small_file);
  const size_t at = status ? status->find("\nPPid:\t") : std::string::npos;
  const long parent = at == std::string::npos ? 0 : std::strtol(status->c_str() + at + 7, nullptr, 10);
  return parent > 0 && ::syscall(SYS_kcmp, pid, parent, KCMP_VM, 0, 0) == 0;
}

}  // namespace

Request Request::read(std::string name, size_t size) {
  return {.kind = Kind::read, .name = std::move(name), .size = size, .text = {}};
}
Request Request::read_text(std::string name) {
  return {.kind = Kind::read_text, .name = std::move(name), .size = sizeof(uint64_t), .text = {}};
}
Request Request::write(std::string name, uint64_t value, size_t size) {
  return {.kind = Kind::write, .name = std::move(name), .size = size, .value = value, .text = {}};
}
Request Request::write_text(std::string name, std::string text) {
  return {.kind = Kind::write, .name = std::move(name), .size = sizeof(uint64_t), .text = std::move(text)};
}
Request Request::invoke(std::string name) {
  return {.kind = Kind::invoke, .name = std::move(name), .text = {}};
}

/// A thread that is stopped where calls are safe.
struct Caller::Held {
  std::unique_ptr<Tracee> tracee;
  uint64_t block = 0;  // where requests are laid out; below it is stack
  Clock::time_point since;
};

Result<Caller> Caller::open(const ProcRoot& proc, pid_t pid, std::vector<MappedImage> images,
                            CallLimits limits) {
#if !defined(__x86_64__)
  return fail(Errc::unsupported, "calling mallctl in a process is known for x86-64 only");
#endif
  if (pid == ::getpid()) {
    return fail(Errc::usage, "jemtrace cannot call mallctl in itself");
  }
  Caller caller(proc, pid, std::move(images), std::move(limits));
  const auto with_mallctl = std::find_if(caller.images_.begin(), caller.images_.end(),
                                         [](const auto& i) { return i.image->mallctl_vaddr != 0; });
  if (with_mallctl == caller.images_.end()) {
    return fail(Errc::unsupported,
                caller.images_.empty() ? fmt::format("pid {} maps no jemalloc", pid)
                                       : fmt::format("no symbol says where mallctl is in {}",
                                                     escape(caller.images_.front().path)),
                "keep its symbols, install its debug file, or do without --mallctl=call");
  }
  caller.used_ = static_cast<size_t>(with_mallctl - caller.images_.begin());
  caller.mallctl_ = with_mallctl->bias + with_mallctl->image->mallctl_vaddr;
  for (const MappedImage& mapped : caller.images_) {
    const auto code = code_of(*mapped.image, mapped.bias);
    caller.jemalloc_.insert(caller.jemalloc_.end(), code.begin(), code.end());
  }
  ASSIGN_OR_RETURN(const discover::Mappings maps, discover::Mappings::read(proc, pid));
  const discover::Mapping* const code = mapping_of(maps, caller.mallctl_);
  if (code == nullptr || !code->executable || code->inode == 0) {
    return fail(Errc::gone, fmt::format("pid {} does not map its jemalloc any more", pid));
  }
  caller.inode_ = code->inode;
  if (shares_memory_with_parent(proc, pid)) {
    return fail(Errc::unsupported,
                fmt::format("pid {} shares its memory with its parent, as after vfork", pid));
  }
  return caller;
}

std::optional<Refusal> Caller::look(pid_t tid, BlockedCall& blocked) const {
  const ProcRoot task(proc_.of(pid_, "task"));
  const auto text = task.read(tid, "status", small_file);
  const auto status = text ? parse_thread_status(*text) : std::nullopt;
  if (!status) {
    return Refusal{"it has ended", true};
  }
  if (auto refusal = refuse_status(*status)) {
    return refusal;
  }
  const auto call = task.read(tid, "syscall", small_file);
  if (!call) {
    return Refusal{call.error().code == Errc::denied ? "it may not be looked at" : "it has ended", true};
  }
  const auto parsed = parse_blocked_call(*call);
  if (!parsed) {
    return Refusal{"it is running", false};
  }
  blocked = *parsed;
  return refuse_call(blocked);
}

std::optional<Refusal> Caller::look_at_stack(const Tracee& tracee, const discover::Mappings& maps,
                                             size_t block_bytes) {
  const BlockedCall where = tracee.where();
  const discover::Mapping* const stack = mapping_of(maps, where.sp);
  if (stack == nullptr || where.sp % sizeof(uint64_t) != 0) {
    return Refusal{"its stack is not where it was", false};
  }
  const bool grows = stack->path == "[stack]";
  const uint64_t room = where.sp - stack->start;
  if (room < block_bytes + red_zone + 64 + (grows ? 0 : stack_for_call)) {
    return Refusal{"its stack has too little room left for a call", false};
  }
  const uint64_t left = stack->end - where.sp;
  const TargetMemory memory(pid_);
  // Reading ends at a guard page, which is no mapping of its own since Linux 6.13.
  const auto bytes = memory.read_some(where.sp, std::min<uint64_t>(left, max_stack));
  if (bytes.size() == max_stack && left > max_stack) {
    return Refusal{"its stack is too large to be looked through", false};
  }
  if (bytes.size() < std::min<uint64_t>(left, least_stack)) {
    return Refusal{"its stack cannot be read", false};
  }
  std::vector<uint64_t> words(bytes.size() / sizeof(uint64_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(uint64_t));
  std::set<uint64_t> returns = {where.pc};
  for (const uint64_t word : words) {
    const discover::Mapping* const code = mapping_of(maps, word);
    if (code != nullptr && code->executable) {
      returns.insert(word);
    }
  }
  if (returns.size() > max_returns) {
    return Refusal{"its stack is too deep to be looked through", false};
  }
  const bool handles_signal = std::any_of(returns.begin(), returns.end(), [&](uint64_t address) {
    return is_sigreturn(memory.read_some(address, sigreturn_bytes));
  });
  if (handles_signal) {
    return Refusal{"it is in a signal handler", false};
  }
  return look_for_jemalloc({where.sp, words}, where.pc, tracee.frame_pointer(), maps, returns);
}

std::optional<Refusal> Caller::look_for_jemalloc(const Stack& stack, uint64_t pc, uint64_t bp,
                                                 const discover::Mappings& maps,
                                                 const std::set<uint64_t>& returns) {
  const Refusal inside{"a function of jemalloc is on its stack, or was and left its address there", false};
  if (find_return({&pc, 1}, jemalloc_)) {
    return inside;
  }
  if (!find_return(stack.words, jemalloc_)) {
    return std::nullopt;
  }
  // Rules are asked for one byte before the address: within the call.
  std::set<uint64_t> calls;
  for (const uint64_t address : returns) {
    calls.insert(address - 1);
  }
  if (!rules_.know(maps, calls)) {
    unknown_ = std::move(calls);  // learned once the thread runs again
    return inside;
  }
  const Walked walked = walk(stack, pc, bp, [&](uint64_t at) { return rules_.at(maps, at); });
  return find_live_return(stack, walked, jemalloc_) ? std::optional(inside) : std::nullopt;
}

Result<Caller::Held> Caller::try_thread(pid_t tid, size_t block_bytes, Refusal& refusal) {
  const auto refuse = [&](Refusal why) -> tl::unexpected<Error> {
    refusal = std::move(why);
    return fail(Errc::unsupported, refusal.reason);
  };
  BlockedCall blocked;
  if (auto why = look(tid, blocked)) {
    return refuse(std::move(*why));
  }
  ASSIGN_OR_RETURN(const discover::Mappings maps, discover::Mappings::read(proc_, pid_));
  const discover::Mapping* const code = mapping_of(maps, mallctl_);
  const bool first_page_free = maps.all().empty() || maps.all().front().start >= Tracee::unmapped_below();
  if (code == nullptr || !code->executable || code->inode != inode_) {
    return fail(Errc::gone, fmt::format("pid {} does not map its jemalloc any more", pid_));
  }
  if (!first_page_free) {
    return refuse({"its process has mapped address 0, which calls return to", true});
  }
  const auto since = Clock::now();
  ASSIGN_OR_RETURN(auto tracee, Tracee::seize(pid_, tid));
  ++stops_;
  const auto give_back = [&](Refusal why) -> tl::unexpected<Error> {
    (void)let_go({std::move(tracee), 0, since});
    return refuse(std::move(why));
  };
  const BlockedCall where = tracee->where();
  if (!tracee->runs_64_bit()) {
    return give_back({"it runs 32-bit code", true});
  }
  if (tracee->process_stopped()) {
    return give_back({"it is stopped", false});
  }
  if (auto why = refuse_call(where)) {
    return give_back(std::move(*why));
  }
  if (auto why = look_at_stack(*tracee, maps, block_bytes)) {
    auto given_back = give_back(std::move(*why));
    if (!unknown_.empty()) {
      rules_.learn(proc_, pid_, maps, std::exchange(unknown_, {}));
    }
    return given_back;
  }
  const uint64_t block = (where.sp - red_zone - block_bytes) & ~uint64_t{63};
  // The frame of the call begins with its return address, below the block.
  constexpr uint64_t below = 64;
  if (auto prepared = tracee->prepare(block - below, block_bytes + below); !prepared) {
    (void)let_go({std::move(tracee), 0, since});
    return tl::unexpected(std::move(prepared).error());
  }
  return Held{std::move(tracee), block, since};
}

Result<Caller::Held> Caller::hold(size_t block_bytes) {
  const auto end = Clock::now() + limits_.find;
  for (;;) {
    Refusal first;
    bool any_hope = false;
    for (const pid_t tid : threads_of(proc_, pid_)) {
      Refusal refusal;
      auto held = try_thread(tid, block_bytes, refusal);
      if (held) {
        return held;
      }
      if (refusal.reason.empty()) {
        if (held.error().code == Errc::gone && tid != pid_) {
          continue;  // only this thread
        }
        return held;
      }
      any_hope = any_hope || !refusal.lasting;
      if (tid == pid_) {
        first = refusal;
      }
    }
    if (!any_hope || Clock::now() > end) {
      return fail(
          Errc::unsupported,
          fmt::format("no thread of pid {} can be used for a call; main thread: {}", pid_, first.reason),
          any_hope ? "try again, or do without --mallctl=call" : "do without --mallctl=call");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

Status Caller::let_go(Held held) {
  Status status = held.tracee->release();
  longest_pause_ = std::max<std::chrono::nanoseconds>(longest_pause_, Clock::now() - held.since);
  return status;
}

Result<std::vector<Answer>> Caller::run(const std::vector<Request>& requests,
                                        const Tracee::Callback& callback) {
  size_t largest = 0;
  for (const Request& request : requests) {
    largest = std::max(largest, block_size(request));
  }
  const TargetMemory memory(pid_);
  std::vector<Answer> answers;
  const auto call = [&](const Held& held, const Request& request) -> Result<Answer> {
    const Block block = lay_out(request, held.block);
    TRY(memory.write(held.block, block.bytes));
    const bool reads = request.kind == Request::Kind::read || request.kind == Request::Kind::read_text;
    const bool writes = request.kind == Request::Kind::write;
    const uint64_t args[] = {block.name, reads ? block.old_value : 0, reads ? block.old_size : 0,
                             writes ? block.new_value : 0, writes ? request.size : 0};
    ASSIGN_OR_RETURN(const uint32_t error,
                     held.tracee->call(mallctl_, args, held.block, limits_.call, limits_.slow, callback));
    Answer answer{.error = static_cast<int>(error), .text = {}};
    if (reads && error == 0) {
      TRY(memory.read(block.old_value, &answer.value, std::min(request.size, sizeof answer.value)));
    }
    if (request.kind == Request::Kind::read_text && error == 0 && answer.value != 0) {
      ASSIGN_OR_RETURN(answer.text, memory.read_text(answer.value, max_text));
    }
    return answer;
  };
  while (answers.size() < requests.size()) {
    ASSIGN_OR_RETURN(Held held, hold(largest));
    Status failed;
    do {
      auto answer = call(held, requests[answers.size()]);
      if (!answer) {
        failed = tl::unexpected(std::move(answer).error());
        break;
      }
      answers.push_back(std::move(*answer));
    } while (answers.size() < requests.size() && Clock::now() - held.since < limits_.pause);
    const Status released = let_go(std::move(held));
    TRY(failed);
    TRY(released);
  }
  return answers;
}

}  // namespace jemtrace::read
