#include "util/confined.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <vector>

#include "util/file.hpp"

namespace jemtrace {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool asan = true;
#else
constexpr bool asan = false;
#endif

class ConfinedTest : public ::testing::Test {
 protected:
  Result<std::string> run(const Work& work, const Give& give = {}) {
    confinement_.file = file_.get();
    return run_confined(confinement_, work, give);
  }
  /// The errno of something that is tried in the child.
  int attempt(const std::function<long()>& what) {
    const auto answer = run([&](int, const Ask&) { return std::to_string(what() < 0 ? errno : 0); });
    EXPECT_TRUE(answer) << answer.error().message();
    return answer ? std::stoi(*answer) : -1;
  }

  Fd file_{::open("/etc/passwd", O_RDONLY | O_CLOEXEC)};
  Confinement confinement_{.path = "/some/file",
                           .file = -1,
                           .budget = {.memory_bytes = 64 << 20, .cpu = std::chrono::seconds(2)},
                           .max_answer = 8 << 20};
};

TEST_F(ConfinedTest, hands_over_what_the_child_returns) {
  const auto answer = run([](int file, const Ask&) {
    char first[4] = {};
    return ::pread(file, first, 4, 0) == 4 ? std::string(first, 4) : "cannot read";
  });
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(*answer, "root");
}

TEST_F(ConfinedTest, carries_megabytes) {
  const auto answer = run([](int, const Ask&) { return std::string(5 << 20, 'x'); });
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->size(), size_t{5} << 20);
}

TEST_F(ConfinedTest, refuses_an_answer_beyond_the_bound) {
  const auto answer = run([](int, const Ask&) { return std::string(9 << 20, 'x'); });
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::malformed);
}

TEST_F(ConfinedTest, allows_nothing_but_computing) {
  EXPECT_EQ(attempt([] { return ::open("/etc/passwd", O_RDONLY); }), EPERM);
  EXPECT_EQ(attempt([] { return ::socket(AF_INET, SOCK_STREAM, 0); }), EPERM);
  EXPECT_EQ(attempt([] { return ::execl("/bin/true", "true", nullptr); }), EPERM);
  EXPECT_EQ(attempt([] { return ::fork(); }), EPERM);
  EXPECT_EQ(attempt([] { return ::kill(::getppid(), 0); }), EPERM);
  EXPECT_EQ(attempt([] { return ::stat("/etc/passwd", std::make_unique<struct stat>().get()); }), EPERM);
  EXPECT_EQ(attempt([] { return ::syscall(SYS_ptrace, 0, 0, 0, 0); }), EPERM);
  EXPECT_EQ(attempt([] { return ::syscall(SYS_bpf, 0, 0, 0); }), EPERM);
  EXPECT_EQ(attempt([] {
              return reinterpret_cast<long>(
                  ::mmap(nullptr, 4096, PROT_EXEC | PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            }),
            EPERM);
}

TEST_F(ConfinedTest, keeps_no_other_descriptor_open) {
  const Fd secret(::open("/etc/hostname", O_RDONLY));
  const auto answer = run([&](int file, const Ask&) {
    std::string open;
    for (int fd = 0; fd < 300; ++fd) {
      struct stat st {};
      open += ::fstat(fd, &st) == 0 ? (fd == file             ? "file "
                                       : S_ISSOCK(st.st_mode) ? "channel "
                                                              : "other ")
                                    : "";
    }
    return open;
  });
  ASSERT_TRUE(answer);
  EXPECT_TRUE(*answer == "file channel " || *answer == "channel file ") << *answer;
}

TEST_F(ConfinedTest, runs_as_nobody_and_never_as_a_real_time_thread) {
  const sched_param first{.sched_priority = 1};
  ::sched_setscheduler(0, SCHED_FIFO, &first);
  std::string status;
  const auto answer = run(
      [](int, const Ask& ask) {
        (void)ask("look at me");
        return std::string("done");
      },
      [&](const std::string& name) -> Result<Given> {
        EXPECT_EQ(name, "look at me");
        const std::string child = read_file("/proc/thread-self/children").value_or("");
        if (!child.empty()) {
          status = read_file("/proc/" + std::to_string(std::stoi(child)) + "/status").value_or("");
          EXPECT_EQ(::sched_getscheduler(std::stoi(child)), SCHED_OTHER);
        }
        return fail_errno("no", ENOENT);
      });
  const sched_param ordinary{.sched_priority = 0};
  ::sched_setscheduler(0, SCHED_OTHER, &ordinary);
  ASSERT_TRUE(answer);
  if (status.empty()) {
    GTEST_SKIP() << "no /proc/PID/children";
  }
  for (const char* line :
       {"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
        "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}) {
    EXPECT_NE(status.find(line), std::string::npos) << line << "\n" << status;
  }
  if (::geteuid() == 0) {
    EXPECT_NE(status.find("Uid:\t65534\t65534\t65534\t65534"), std::string::npos) << status;
    EXPECT_NE(status.find("Groups:\t \n"), std::string::npos) << status;
  }
}

TEST_F(ConfinedTest, shares_no_memory_with_us) {
  auto* shared =
      static_cast<int*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(shared, MAP_FAILED);
  const auto answer = run([&](int, const Ask&) {
    *shared = 1;
    return std::string("written");
  });
  EXPECT_FALSE(answer);
  EXPECT_EQ(*shared, 0);
  ::munmap(shared, 4096);
}

TEST_F(ConfinedTest, gives_a_file_on_request_and_can_refuse) {
  std::vector<std::string> asked;
  const auto answer = run(
      [](int, const Ask& ask) {
        const auto refused = ask("no");
        const auto file = ask("yes");
        char first[4] = {};
        const bool read = file && ::pread(file->get(), first, 4, 0) == 4;
        return (refused ? "given " : std::to_string(refused.error().sys) + " ") +
               (read ? std::string(first, 4) : "nothing");
      },
      [&](const std::string& name) -> Result<Given> {
        asked.push_back(name);
        if (name == "no") {
          return fail_errno("no", ENOENT);
        }
        return Given{Fd(::open("/etc/passwd", O_RDONLY)), {}};
      });
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(*answer, "2 root");
  EXPECT_EQ(asked, (std::vector<std::string>{"no", "yes"}));
}

TEST_F(ConfinedTest, a_crash_is_an_error_that_names_the_file) {
  const auto answer = run([](int, const Ask&) -> std::string { __builtin_trap(); });
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::malformed);
  EXPECT_NE(answer.error().what.find("/some/file was ended by: Illegal instruction"), std::string::npos)
      << answer.error().what;
}

TEST_F(ConfinedTest, an_exception_is_an_error) {
  const auto answer = run([](int, const Ask&) -> std::string { throw std::bad_alloc(); });
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::too_large);
}

TEST_F(ConfinedTest, memory_ends_at_the_budget) {
  if (asan) {
    GTEST_SKIP() << "no limit under AddressSanitizer";
  }
  const auto take = [](size_t bytes) {
    return [bytes](int, const Ask&) {
      std::vector<char> much(bytes);
      ::memset(much.data(), 1, much.size());
      return std::string("fits");
    };
  };
  EXPECT_EQ(run(take(32 << 20)).value_or("too much"), "fits");
  const auto answer = run(take(256 << 20));
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::too_large);
  EXPECT_NE(answer.error().what.find("64 MB"), std::string::npos) << answer.error().what;
}

TEST_F(ConfinedTest, a_file_can_bring_a_budget_of_its_own) {
  const std::string status = read_file("/proc/self/status").value_or("CapEff:\t0");
  const uint64_t capabilities = std::strtoull(status.c_str() + status.find("CapEff:") + 7, nullptr, 16);
  if (::geteuid() == 0 && (capabilities >> 24 & 1) == 0) {
    GTEST_SKIP() << "no CAP_SYS_RESOURCE";
  }
  const auto answer = run(
      [](int, const Ask& ask) {
        (void)ask("more");
        std::vector<char> much(128 << 20);
        ::memset(much.data(), 1, much.size());
        return std::string("fits");
      },
      [](const std::string&) -> Result<Given> {
        return Given{Fd(::open("/etc/passwd", O_RDONLY)), {.memory_bytes = 128 << 20, .cpu = {}}};
      });
  EXPECT_TRUE(answer) << answer.error().message();
}

TEST_F(ConfinedTest, an_endless_loop_ends_at_the_limit_of_cpu_time) {
  confinement_.budget.cpu = std::chrono::seconds(1);
  const auto answer = run([](int, const Ask&) {
    std::string text;
    for (;;) {
      text.assign(1000, 'x');
    }
    return text;
  });
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::too_large);
  EXPECT_NE(answer.error().what.find("1 s of CPU time"), std::string::npos) << answer.error().what;
}

TEST_F(ConfinedTest, waiting_for_ever_ends_at_the_limit_of_the_clock) {
  confinement_.budget.cpu = std::chrono::seconds(1);
  const auto answer = run([](int, const Ask&) {
    for (int futex = 0;;) {
      ::syscall(SYS_futex, &futex, 0 /* FUTEX_WAIT */, 0, nullptr, nullptr, 0);
    }
    return std::string();
  });
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::too_large);
  EXPECT_NE(answer.error().what.find("2 s"), std::string::npos) << answer.error().what;
}

TEST_F(ConfinedTest, leaves_no_child_and_no_descriptor_behind) {
  const Fd before(::dup(file_.get()));
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(run([](int, const Ask&) { return std::string("x"); }));
  }
  const Fd after(::dup(file_.get()));
  EXPECT_EQ(after.get(), before.get() + 1);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

}  // namespace
}  // namespace jemtrace
