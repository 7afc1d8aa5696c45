#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>

#include "render/json_parts.hpp"
#include "util/text.hpp"

namespace jemtrace::render {
namespace {

/// jemalloc's settings are typed: a consumer should compare dirty_decay_ms with a number.
Json typed(const std::string& value) {
  if (value == "true" || value == "false") {
    return value == "true";
  }
  int64_t number = 0;
  const char* const end = value.data() + value.size();
  const auto [rest, error] = std::from_chars(value.data(), end, number);
  return error == std::errc{} && rest == end && !value.empty() ? Json(number) : text(value);
}

Json setting_value(const ledger::Setting& setting) {
  return {{"value", typed(setting.value)}, {"source", text(setting.source)}};
}

Json conf_object(const std::map<std::string, ledger::Setting>& conf) {
  Json object = Json::object();
  for (const char* option : named_settings) {
    const auto found = conf.find(option);
    object[option] = found == conf.end() ? Json(nullptr) : setting_value(found->second);
  }
  for (const auto& [option, value] : conf) {
    if (!object.contains(option)) {
      object[escape(option)] = setting_value(value);
    }
  }
  return object;
}

Json texts(const std::vector<std::string>& strings) {
  Json array = Json::array();
  for (const std::string& string : strings) {
    array.push_back(text(string));
  }
  return array;
}

Json roles_object(const std::map<std::string, ledger::RoleInfo>& roles) {
  Json object = Json::object();
  for (const auto& [role, info] : roles) {
    object[escape(role)] = {{"offset", info.offset},
                            {"found_by", text_or_null(info.found_by)},
                            {"probe", info.probe},
                            {"cost_class", maybe(info.cost_class)}};
  }
  return object;
}

Json image_object(const ledger::ImageInfo& image) {
  return {{"path", text(image.path)},
          {"build_id", text_or_null(image.build_id)},
          {"version", text_or_null(image.version)},
          {"prefix", text(image.prefix)},
          {"linkage", text_or_null(image.linkage)},
          {"tier", text_or_null(image.tier)},
          {"roles", roles_object(image.roles)},
          {"missing", texts(image.missing)},
          {"notes", texts(image.notes)}};
}

Json role_report(const RoleReport& role) {
  return {{"symbol", text_or_null(role.symbol)},           {"offset", role.offset},
          {"found_by", text_or_null(role.found_by)},       {"probe", role.probe_offset ? "entry" : "none"},
          {"cost_class", maybe(role.cost_class)},          {"probe_offset", maybe(role.probe_offset)},
          {"instruction", text_or_null(role.instruction)}, {"evidence", texts(role.evidence)}};
}

Json structures_object(const ledger::Maybe<StructuresReport>& structures) {
  if (!structures) {
    return nullptr;
  }
  Json options = Json::object();
  for (const auto& [option, address] : structures->options) {
    options[escape(option)] = hex(address);
  }
  return {{"found_by", text_or_null(structures->found_by)},
          {"arenas", structures->arenas ? hex(*structures->arenas) : Json(nullptr)},
          {"options", options},
          {"readable", texts(structures->readable)},
          {"missing", texts(structures->missing)},
          {"evidence", texts(structures->evidence)}};
}

}  // namespace

Json sampled_value(const ledger::Maybe<ledger::Sampled>& sampled) {
  return sampled ? Json(sampled->value) : Json(nullptr);
}

Json text(const std::string& untrusted) {
  return escape(untrusted);
}

Json text_or_null(const std::string& untrusted) {
  return untrusted.empty() ? Json(nullptr) : text(untrusted);
}

Json hex(uint64_t value) {
  return fmt::format("{:#x}", value);
}

Json states_object(const ledger::States& s) {
  return {{"allocated_bytes", maybe(s.allocated_bytes)},
          {"active_bytes", maybe(s.active_bytes)},
          {"dirty_bytes", maybe(s.dirty_bytes)},
          {"muzzy_bytes", maybe(s.muzzy_bytes)},
          {"retained_bytes", maybe(s.retained_bytes)}};
}

static Json container(const ledger::Maybe<ledger::ContainerInfo>& container) {
  if (!container) {
    return nullptr;
  }
  return {{"runtime", text_or_null(container->runtime)},
          {"id", text(container->id)},
          {"pod_uid", text_or_null(container->pod_uid)}};
}

Json target_line(const ledger::TargetInfo& target) {
  Json images = Json::array();
  for (const ledger::ImageInfo& image : target.images) {
    images.push_back(image_object(image));
  }
  return {{"type", "target"},
          {"pid", target.pid},
          {"start_time_ns", target.start_time_ns},
          {"comm", text(target.comm)},
          {"exe", text_or_null(target.exe)},
          {"cgroup", text_or_null(target.cgroup)},
          {"container", container(target.container)},
          {"images", images},
          {"conf", conf_object(target.conf)},
          {"conf_unknown_because", text_or_null(target.conf_unknown_because)}};
}

Json list_line(const ListRow& row) {
  Json line = target_line(row.target);
  line["rss_bytes"] = sampled_value(row.sample.rss_bytes);
  line["lazyfree_bytes"] = sampled_value(row.sample.lazyfree_bytes);
  return line;
}

Json image_line(const ImageReport& report) {
  Json roles = Json::object();
  for (const RoleReport& role : report.roles) {
    roles[escape(role.role)] = role_report(role);
  }
  Json costs = Json::object();
  for (const std::string& role : report.missing) {
    costs[escape(role)] = what_missing_costs(role);
  }
  return {{"type", "image"},
          {"path", text(report.path)},
          {"build_id", text_or_null(report.build_id)},
          {"version", text_or_null(report.version)},
          {"prefix", text(report.prefix)},
          {"linkage", text_or_null(report.linkage)},
          {"tier", text_or_null(report.tier)},
          {"roles", roles},
          {"missing", texts(report.missing)},
          {"missing_costs", costs},
          {"conf_variable", text_or_null(report.conf_variable)},
          {"call_sites", maybe(report.call_sites)},
          {"cached", report.cached},
          {"structures", structures_object(report.structures)},
          {"notes", texts(report.notes)}};
}

Json check_line(const CheckItem& item) {
  return {{"type", "check"},
          {"name", text(item.name)},
          {"status", name(item.status)},
          {"detail", text(item.detail)},
          {"hint", text_or_null(item.hint)}};
}

}  // namespace jemtrace::render
