// As servers do: 8 threads allocate and free without a pause, and fork now and then, while the main thread
// waits in one system call after another. What is printed depends on the arguments alone:
//   checksum=   over what the blocks held when they were freed, children included
//   errors=     waits that failed; EINTR that no signal handler caused is one
//   signals=    how often SIGRTMIN came
#include <jemalloc/jemalloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "workload.hpp"

namespace {

std::atomic<uint64_t> signals;
std::atomic<uint64_t> working;

uint64_t next(uint64_t& random) {
  random = random * 6364136223846793005u + 1442695040888963407u;
  return random >> 33;
}

struct Block {
  unsigned char* memory = nullptr;
  size_t size = 0;
  unsigned char value = 0;
};

// The first and last byte, and one per page: enough to see a block that another one overlaps.
void fill(Block& block) {
  for (size_t i = 0; i < block.size; i += 4096) {
    block.memory[i] = block.value;
  }
  block.memory[block.size - 1] = block.value;
}

uint64_t drop(Block& block) {
  uint64_t sum = 0;
  if (block.memory != nullptr) {
    for (size_t i = 0; i < block.size; i += 4096) {
      sum += block.memory[i];
    }
    sum += block.memory[block.size - 1];
    free(block.memory);
    block.memory = nullptr;
  }
  return sum;
}

uint64_t churn(uint64_t seed, uint64_t operations, size_t size) {
  std::vector<Block> blocks(64);
  uint64_t random = seed;
  uint64_t sum = 0;
  for (uint64_t i = 0; i < operations; i++) {
    Block& block = blocks[next(random) % blocks.size()];
    sum = sum * 31 + drop(block);
    block.size = 1 + next(random) % size;
    block.value = static_cast<unsigned char>(next(random));
    block.memory = static_cast<unsigned char*>(malloc(block.size));
    if (block.memory == nullptr) {
      workload::die("malloc");
    }
    fill(block);
  }
  for (Block& block : blocks) {
    sum = sum * 31 + drop(block);
  }
  return sum;
}

uint64_t churn_in_child(uint64_t seed, size_t size) {
  const pid_t child = fork();
  if (child < 0) {
    workload::die("fork");
  }
  if (child == 0) {
    _exit(static_cast<int>(churn(seed, 500, size) & 0x7f));
  }
  int status = 0;
  while (waitpid(child, &status, 0) != child) {
    if (errno != EINTR) {
      workload::die("waitpid");
    }
  }
  if (!WIFEXITED(status)) {
    workload::die("child");
  }
  return static_cast<uint64_t>(WEXITSTATUS(status));
}

// Every way to wait that servers use; returns what it gave.
int wait_once(uint64_t which, int pipe_end, int epoll) {
  timespec time = {0, 3'000'000};
  timeval select_time = {0, 3000};
  sigset_t none;
  sigemptyset(&none);
  pollfd in = {pipe_end, POLLIN, 0};
  epoll_event event;
  fd_set set;
  FD_ZERO(&set);
  switch (which % 7) {
    case 0:
      return poll(&in, 1, 3);
    case 1:
      return epoll_wait(epoll, &event, 1, 3);
    case 2:
      return nanosleep(&time, nullptr);
    case 3:
      return -clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
    case 4:
      return select(0, nullptr, nullptr, nullptr, &select_time);
    case 5:
      return ppoll(&in, 1, &time, &none);
    default:
      return epoll_pwait(epoll, &event, 1, 3, &none);
  }
}

// Not in main's frame: what lies there unused is what earlier calls of malloc left on the stack.
[[gnu::noinline]] void report_start() {
  workload::Report().add("start", "1").write();
}

[[gnu::noinline, noreturn]] void finish(uint64_t sum, uint64_t errors) {
  workload::Report().add("checksum", sum).add("errors", errors).add("signals", signals).write();
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(
      argc, argv,
      {{"threads", "8"}, {"rounds", "40"}, {"operations", "2000"}, {"size", "60000"}, {"forks", "1"}});
  struct sigaction action = {};
  action.sa_handler = [](int) { signals++; };
  sigaction(SIGRTMIN, &action, nullptr);
  sigset_t mine;
  sigemptyset(&mine);
  sigaddset(&mine, SIGRTMIN);
  pthread_sigmask(SIG_BLOCK, &mine, nullptr);  // in the threads: only the main one takes it

  const uint64_t threads = args.number("threads");
  std::vector<uint64_t> sums(threads);
  std::vector<std::thread> workers;
  working = threads;
  for (uint64_t t = 0; t < threads; t++) {
    workers.emplace_back([&, t] {
      for (uint64_t round = 0; round < args.number("rounds"); round++) {
        sums[t] = sums[t] * 33 + churn(t * 1000 + round, args.number("operations"), args.number("size"));
        if (args.number("forks") != 0 && round % 8 == t) {
          sums[t] = sums[t] * 33 + churn_in_child(t * 777 + round, args.number("size"));
        }
      }
      working--;
    });
  }
  pthread_sigmask(SIG_UNBLOCK, &mine, nullptr);
  report_start();

  int ends[2];
  if (pipe(ends) != 0) {
    workload::die("pipe");
  }
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event = {};
  event.events = EPOLLIN;
  epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event);
  uint64_t errors = 0;
  for (uint64_t i = 0; working != 0; i++) {
    const uint64_t signals_before = signals;
    errno = 0;
    const int result = wait_once(i, ends[0], epoll);
    if (result != 0) {
      const bool by_signal = signals != signals_before;
      errors += by_signal ? 0 : 1;
      if (!by_signal) {
        dprintf(STDERR_FILENO, "wait %d: %d, errno %d\n", static_cast<int>(i % 7), result, errno);
      }
    }
  }
  uint64_t sum = 0;
  for (uint64_t t = 0; t < threads; t++) {
    workers[t].join();
    sum = sum * 37 + sums[t];
  }
  finish(sum, errors);
}
