#include "read/conf_variables.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace jemtrace::read {
namespace {

const char* conf = "dirty_decay_ms:7,thp:never";

std::optional<std::string> read_own(const void* variable, bool through_got = false) {
  const ProcessMemory memory(::getpid());
  return read_conf_variable(memory, {"malloc_conf", reinterpret_cast<uint64_t>(variable), through_got}, 0);
}

TEST(ConfVariable, is_read_directly_and_through_the_got) {
  EXPECT_EQ(read_own(&conf), "dirty_decay_ms:7,thp:never");
  const void* const got = &conf;
  EXPECT_EQ(read_own(&got, true), "dirty_decay_ms:7,thp:never");
}

TEST(ConfVariable, that_is_not_set_or_leads_nowhere_is_unknown) {
  const char* none = nullptr;
  const auto* wild = reinterpret_cast<const char*>(uintptr_t{0x10});
  EXPECT_FALSE(read_own(&none));
  EXPECT_FALSE(read_own(&wild));
  EXPECT_FALSE(read_own(&none, true));
  EXPECT_FALSE(read_own(nullptr));
}

TEST(ConfVariable, has_to_be_text_that_ends) {
  const char* bytes = "a\x1b[31mb";
  EXPECT_FALSE(read_own(&bytes));
  const std::string endless(5000, 'x');
  const char* text = endless.c_str();
  EXPECT_FALSE(read_own(&text));
}

TEST(ConfVariable, may_end_where_the_memory_does) {
  const auto size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  auto* two = static_cast<char*>(
      ::mmap(nullptr, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(two, MAP_FAILED);
  ::munmap(two + size, size);
  char* text = two + size - 5;
  std::memcpy(text, "a:bc", 5);
  EXPECT_EQ(read_own(&text), "a:bc");
  std::memcpy(text, "a:bcd", 5);
  EXPECT_FALSE(read_own(&text));
  ::munmap(two, size);
}

}  // namespace
}  // namespace jemtrace::read
