#include "render/sink.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

#include "render/output.hpp"
#include "samples.hpp"

namespace jemtrace::render {
namespace {

/// A stream whose reader has gone.
class ClosedPipe : public testing::Test {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    close(ends[0]);
    file_ = fdopen(ends[1], "w");
    ASSERT_NE(file_, nullptr);
  }
  void TearDown() override { fclose(file_); }
  std::FILE* file_ = nullptr;
};

TEST_F(ClosedPipe, is_remembered_by_the_sink) {
  FileSink sink(file_);
  sink.write("line\n");
  EXPECT_FALSE(sink.failed());  // still in the buffer
  sink.flush();
  EXPECT_TRUE(sink.failed());
  EXPECT_EQ(sink.error(), EPIPE);
}

TEST_F(ClosedPipe, lets_every_output_go_on_quietly) {
  FileSink sink(file_);
  for (const auto& out : {make_text(sink, {}), make_ndjson(sink)}) {
    out->header(samples::header());
    out->target(samples::target());
    out->interval(samples::interval());
    out->summary(samples::summary());
    EXPECT_EQ(sink.error(), EPIPE);
  }
}

class FailingSink : public Sink {
 public:
  int calls = 0;

 private:
  int put(std::string_view) override { return ++calls == 2 ? ENOSPC : 0; }
};

TEST(Sink, takes_nothing_more_after_a_failure) {
  FailingSink sink;
  for (int i = 0; i < 5; ++i) {
    sink.write("x");
  }
  EXPECT_EQ(sink.calls, 2);
  EXPECT_EQ(sink.error(), ENOSPC);
}

TEST(Sink, keeps_text_in_order) {
  StringSink sink;
  sink.write("a");
  sink.write("");
  sink.write("b\n");
  EXPECT_EQ(sink.text(), "ab\n");
}

}  // namespace
}  // namespace jemtrace::render
