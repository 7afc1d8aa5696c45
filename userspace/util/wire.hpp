#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

/// Structs as bytes, in protobuf's wire format. A struct is described once, beside its type, for both ways:
///
///   void fields(auto& archive, wire::Is<FoundRole> auto& it) {
///     archive(1, it.role);
///     archive(2, it.offset);
///   }
///
/// What is read may be damaged or hostile: nothing is believed that was not checked here.
namespace jemtrace::wire {

inline constexpr size_t max_string = 4096;
inline constexpr size_t max_elements = 65536;         // strings or structs in a vector
inline constexpr size_t max_blob = size_t{16} << 20;  // bytes of plain numbers

/// `T` or `const T`.
template <typename T, typename Wanted>
concept Is = std::is_same_v<std::remove_const_t<T>, Wanted>;

/// Without pointers or padding: its bytes are its value. Only for what stays on this host.
template <typename T>
concept Plain = std::has_unique_object_representations_v<T> && std::is_trivially_copyable_v<T>;

template <typename T>
concept Number = std::is_integral_v<T>;

inline bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

/// One of a map.
template <typename T>
struct Entry {
  std::string key;
  T value;
};

template <typename T>
void fields(auto& archive, Entry<T>& it) {
  archive(1, it.key);
  archive(2, it.value);
}
template <typename T>
void fields(auto& archive, const Entry<T>& it) {
  archive(1, it.key);
  archive(2, it.value);
}

class Malformed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Empty strings and empty vectors are not written. Numbers are, as a default need not be 0.
class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}

  /// What a string may not hold when it is read is replaced by '?'.
  void operator()(uint32_t tag, const std::string& text) {
    if (!text.empty()) {
      put(tag, text);
    }
  }
  void operator()(uint32_t tag, Number auto number) {
    using T = decltype(number);
    if constexpr (std::is_signed_v<T>) {
      out_.add_sint64(tag, number);
    } else {
      out_.add_uint64(tag, number);
    }
  }
  template <typename T>
  void operator()(uint32_t tag, T value, T /*last*/) requires std::is_enum_v<T> {
    (*this)(tag, static_cast<uint64_t>(value));
  }
  template <typename T>
  void operator()(uint32_t tag, const std::vector<T>& all) {
    for (const T& one : all) {
      put(tag, one);
    }
  }
  /// Nothing is written of what is not there.
  template <typename T>
  void operator()(uint32_t tag, const std::optional<T>& value) {
    if (value) {
      (*this)(tag, *value);
    }
  }
  template <typename T>
  void operator()(uint32_t tag, const std::map<std::string, T>& all) {
    for (const auto& [key, value] : all) {
      put(tag, Entry<T>{key, value});
    }
  }
  void operator()(uint32_t tag,
                  const auto& message) requires std::is_class_v<std::remove_cvref_t<decltype(message)>> {
    put(tag, message);
  }
  void plain(uint32_t tag, const Plain auto& value) { out_.add_bytes(tag, bytes(&value, sizeof value)); }
  template <Plain T>
  void plain(uint32_t tag, const std::vector<T>& all) {
    if (!all.empty()) {
      out_.add_bytes(tag, reinterpret_cast<const char*>(all.data()), all.size() * sizeof(T));
    }
  }
  void raw(uint32_t tag, const std::string& any) { out_.add_bytes(tag, any); }

 private:
  void put(uint32_t tag, const std::string& text) {
    std::string sound = text.substr(0, max_string);
    for (char& c : sound) {
      c = is_control(c) ? '?' : c;
    }
    out_.add_string(tag, sound);
  }
  void put(uint32_t tag, const auto& message) {
    std::string inner;
    Writer writer(inner);
    fields(writer, message);
    out_.add_message(tag, inner);
  }
  static std::string bytes(const void* from, size_t size) { return {static_cast<const char*>(from), size}; }

  protozero::pbf_writer out_;
};

/// Handed to `fields` once for each field that was read: the one with its tag takes it.
class Reader {
 public:
  explicit Reader(protozero::pbf_reader& in) : in_(in) {}
  [[nodiscard]] bool taken() const { return taken_; }

  void operator()(uint32_t tag, std::string& text) {
    if (mine(tag, protozero::pbf_wire_type::length_delimited)) {
      text = string();
    }
  }
  template <Number T>
  void operator()(uint32_t tag, T& number) {
    if (!mine(tag, protozero::pbf_wire_type::varint)) {
      return;
    }
    if constexpr (std::is_same_v<T, bool>) {
      number = bounded(in_.get_uint64(), 1) != 0;
    } else if constexpr (std::is_signed_v<T>) {
      const int64_t value = in_.get_sint64();
      check(std::in_range<T>(value), "a number is out of range");
      number = static_cast<T>(value);
    } else {
      number = static_cast<T>(bounded(in_.get_uint64(), std::numeric_limits<T>::max()));
    }
  }
  template <typename T>
  void operator()(uint32_t tag, T& value, T last) requires std::is_enum_v<T> {
    if (mine(tag, protozero::pbf_wire_type::varint)) {
      value = static_cast<T>(bounded(in_.get_uint64(), static_cast<uint64_t>(last)));
    }
  }
  template <typename T>
  void operator()(uint32_t tag, std::vector<T>& all) {
    if (mine(tag, protozero::pbf_wire_type::length_delimited)) {
      check(all.size() < max_elements, "too many elements");
      if constexpr (std::is_same_v<T, std::string>) {
        all.push_back(string());
      } else {
        message(all.emplace_back());
      }
    }
  }
  template <typename T>
  void operator()(uint32_t tag, std::optional<T>& value) {
    T inner{};
    (*this)(tag, inner);
    if (taken_ && in_.tag() == tag) {
      value = std::move(inner);
    }
  }
  template <typename T>
  void operator()(uint32_t tag, std::map<std::string, T>& all) {
    if (mine(tag, protozero::pbf_wire_type::length_delimited)) {
      check(all.size() < max_elements, "too many elements");
      Entry<T> entry;
      message(entry);
      all.insert_or_assign(std::move(entry.key), std::move(entry.value));
    }
  }
  template <typename T>
  void operator()(uint32_t tag, T& inner) requires std::is_class_v<T> {
    if (mine(tag, protozero::pbf_wire_type::length_delimited)) {
      message(inner);
    }
  }
  template <Plain T>
  void plain(uint32_t tag, T& value) {
    if (mine(tag, protozero::pbf_wire_type::length_delimited)) {
      const protozero::data_view view = in_.get_view();
      check(view.size() == sizeof value, "a value has another size");
      std::memcpy(&value, view.data(), sizeof value);
    }
  }
  template <Plain T>
  void plain(uint32_t tag, std::vector<T>& all) {
    if (mine(tag, protozero::pbf_wire_type::length_delimited)) {
      const protozero::data_view view = in_.get_view();
      check(view.size() <= max_blob && view.size() % sizeof(T) == 0, "a table has another size");
      all.resize(view.size() / sizeof(T));
      if (!all.empty()) {
        std::memcpy(all.data(), view.data(), view.size());
      }
    }
  }
  void raw(uint32_t tag, std::string& any) {
    if (mine(tag, protozero::pbf_wire_type::length_delimited)) {
      const protozero::data_view view = in_.get_view();
      any.assign(view.data(), view.size());
    }
  }

  /// Reads all fields of one struct. Unknown ones are passed over. Throws Malformed or protozero's.
  static void read(protozero::pbf_reader& in, auto& into) {
    while (in.next()) {
      Reader reader(in);
      fields(reader, into);
      if (!reader.taken()) {
        in.skip();
      }
    }
  }

 private:
  static void check(bool sound, const char* why) {
    if (!sound) {
      throw Malformed(why);
    }
  }
  // protozero only asserts that a field has the type that is asked for.
  bool mine(uint32_t tag, protozero::pbf_wire_type type) {
    if (taken_ || in_.tag() != tag) {
      return false;
    }
    check(in_.wire_type() == type, "a field has another type");
    taken_ = true;
    return true;
  }
  static uint64_t bounded(uint64_t value, uint64_t last) {
    check(value <= last, "a number is out of range");
    return value;
  }
  std::string string() {
    const protozero::data_view view = in_.get_view();
    const std::string_view text(view.data(), view.size());
    check(text.size() <= max_string, "a string is too long");
    for (const char c : text) {
      check(!is_control(c), "a string holds control characters");
    }
    return std::string(text);
  }
  void message(auto& inner) {
    protozero::pbf_reader nested = in_.get_message();
    read(nested, inner);
  }

  protozero::pbf_reader& in_;
  bool taken_ = false;
};

std::string encode(const auto& it) {
  std::string out;
  Writer writer(out);
  fields(writer, it);
  return out;
}

/// False when the bytes make no sense; `into` is then half read and of no use.
bool decode(std::string_view bytes, auto& into) {
  try {
    protozero::pbf_reader in(bytes.data(), bytes.size());
    Reader::read(in, into);
    return true;
  } catch (const Malformed&) {
    return false;
  } catch (const protozero::exception&) {
    return false;
  }
}

}  // namespace jemtrace::wire
