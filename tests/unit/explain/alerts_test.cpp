#include "explain/alerts.hpp"

#include <gtest/gtest.h>

namespace jemtrace::explain {
namespace {

Evaluation with(const char* id) {
  Evaluation evaluation;
  evaluation.findings.push_back({.id = id});
  return evaluation;
}

TEST(Alerts, comes_on_when_found_twice_and_goes_off_when_missing_for_long) {
  Alerts alerts(2, 3);
  alerts.update(with("A"));
  EXPECT_FALSE(alerts.on("A"));
  alerts.update(with("A"));
  EXPECT_TRUE(alerts.on("A"));
  alerts.update({});
  alerts.update({});
  EXPECT_TRUE(alerts.on("A"));
  alerts.update({});
  EXPECT_FALSE(alerts.on("A"));
}

TEST(Alerts, does_not_flap_with_a_number_around_its_threshold) {
  Alerts alerts(2, 3);
  alerts.update(with("A"));
  alerts.update(with("A"));
  for (int i = 0; i < 20; ++i) {
    alerts.update(i % 2 == 0 ? Evaluation{} : with("A"));
    EXPECT_TRUE(alerts.on("A"));
  }
}

TEST(Alerts, stays_as_it_is_while_it_cannot_be_measured) {
  Alerts alerts(1, 1);
  alerts.update(with("A"));
  Evaluation blind;
  blind.unmeasured.push_back({"A", "nothing was traced"});
  alerts.update(blind);
  EXPECT_TRUE(alerts.on("A"));
  alerts.update({});
  EXPECT_FALSE(alerts.on("A"));
}

TEST(Alerts, names_only_what_was_ever_found) {
  Alerts alerts(2, 3);
  EXPECT_TRUE(alerts.states().empty());
  alerts.update(with("A"));
  EXPECT_EQ(alerts.states(), (std::map<std::string, bool>{{"A", false}}));
}

}  // namespace
}  // namespace jemtrace::explain
