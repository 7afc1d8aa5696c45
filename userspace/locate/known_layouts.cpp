#include "locate/known_layouts.hpp"

namespace jemtrace::locate {
namespace {

constexpr KnownCache cache_50 = {{0x6d0, 0}, {0x6c8, 0}, 0x6d8, 0};
constexpr KnownCache cache_52 = {{0x1358, 0}, {0x1350, 0}, 0x1360, 0};
constexpr KnownCache cache_53 = {{0x2618, 0x4bd0}, {0x2610, 0x4bc8}, 0x4be0, 0x4be4};

constexpr KnownDecay decay_50 = {0x70, 0x78, 0x80, 0x90, 0, 0x98, 0xa0};
constexpr KnownDecay decay_52 = {0x78, 0x80, 0x88, 0x98, 0, 0xa0, 0xa8};
constexpr KnownDecay decay_53 = {0x78, 0x80, 0x88, 0x98, 0xa0, 0xa8, 0xb0};

constexpr KnownExtent extent_50 = {0x18, 15, 2};
constexpr KnownExtent extent_51 = {0x18, 16, 2};
constexpr KnownExtent extent_53 = {0x40, 17, 3};

using Bins = ClassLayout::Bins;
constexpr KnownClasses classes_50 = {Bins::inlined, 0x3fc8, 264, 128, 0x2d0, 32, 0, 0};
constexpr KnownClasses classes_51 = {Bins::inlined, 0x3fd8, 264, 128, 0x2d8, 32, 0, 0x1b68};
constexpr KnownClasses classes_520 = {Bins::pointers, 0x65b8, 272, 136, 0x2e8, 32, 0, 0x1b78};
constexpr KnownClasses classes_521 = {Bins::pointers, 0x7208, 280, 136, 0x300, 48, 0, 0x27d0};
constexpr KnownClasses classes_530 = {Bins::behind, 0x13468, 224, 112, 0x3d0, 48, 0, 0x28a0};
constexpr KnownClasses classes_531 = {Bins::behind, 0x13b40, 224, 112, 0x3e0, 56, 16, 0x2ed0};
constexpr KnownClasses classes_dev = {Bins::behind, 0x18940, 224, 112, 0x428, 56, 16, 0x2f10};

constexpr KnownParts parts_50 = {cache_50, decay_50, extent_50, classes_50};
constexpr KnownParts parts_51 = {cache_50, decay_50, extent_51, classes_51};
constexpr KnownParts parts_520 = {cache_52, decay_52, extent_51, classes_520};
constexpr KnownParts parts_521 = {cache_52, decay_52, extent_51, classes_521};
constexpr KnownParts parts_530 = {cache_53, decay_53, extent_53, classes_530};
constexpr KnownParts parts_531 = {cache_53, decay_53, extent_53, classes_531};
constexpr KnownParts parts_dev = {cache_53, decay_53, extent_53, classes_dev};

// From the DWARF of upstream builds of these tags with the default options, and with --with-lg-quantum=3
// (Redis); dev at 295e4894. x86-64, pages of 4 kB. Neither --disable-stats nor musl moves anything, as both
// C libraries have mutexes of 40 bytes.
constexpr KnownLayout layouts[] = {
    {"5.0", Family::v50, 0x1bf0, 0, 0x64e8, 0x58, 0, 0x1c68, 0x2348, 0x2a28, 0x3108, 0x37f8, 0, 0x20, 0x88,
     0x7d0, parts_50},
    {"5.0, quantum of 8", Family::v50, 0x1bf0, 0, 0x6800, 0x58, 0, 0x1c68, 0x2348, 0x2a28, 0x3108, 0x37f8, 0,
     0x20, 0x88, 0x7e8, parts_50},
    {"5.1", Family::v51, 0x1c00, 0, 0x64f8, 0x58, 0, 0x1c78, 0x2358, 0x2a38, 0x3118, 0x3808, 0, 0x20, 0x88,
     0x7d0, parts_51},
    {"5.1, quantum of 8", Family::v51, 0x1c00, 0, 0x6810, 0x58, 0, 0x1c78, 0x2358, 0x2a38, 0x3118, 0x3808, 0,
     0x20, 0x88, 0x7e8, parts_51},
    {"5.2.0", Family::v52, 0x1c18, 0, 0x66d8, 0x68, 0, 0x1c98, 0x3000, 0x4368, 0x56d0, 0x5dc8, 0, 0x30, 0x90,
     0x7d8, parts_520},
    {"5.2.0, quantum of 8", Family::v52, 0x1c18, 0, 0x66f0, 0x68, 0, 0x1c98, 0x3000, 0x4368, 0x56d0, 0x5dc8,
     0, 0x30, 0x90, 0x7f0, parts_520},
    {"5.2.1", Family::v52, 0x2868, 0, 0x7328, 0x68, 0, 0x28e8, 0x3c50, 0x4fb8, 0x6320, 0x6a18, 0, 0x30, 0x90,
     0x7d8, parts_521},
    {"5.2.1, quantum of 8", Family::v52, 0x2868, 0, 0x7340, 0x68, 0, 0x28e8, 0x3c50, 0x4fb8, 0x6320, 0x6a18,
     0, 0x30, 0x90, 0x7f0, parts_521},
    {"5.3.0", Family::v53, 0x29a0, 0x13450, 0x13458, 0x38, 0x29b0, 0x29e8, 0x75d8, 0xc1c8, 0x10ec8, 0x115c0,
     0x11cc0, 0, 0xa0, 0xf28, parts_530},
    {"5.3.0, quantum of 8", Family::v53, 0x29a0, 0x13450, 0x13458, 0x38, 0x29b0, 0x29e8, 0x75d8, 0xc1c8,
     0x10ec8, 0x115c0, 0x11cc0, 0, 0xa0, 0xf58, parts_530},
    {"5.3.1", Family::v531, 0x3008, 0x13b00, 0x13b08, 0x48, 0x3018, 0x3040, 0x7c30, 0xc820, 0x11520, 0x11c18,
     0x12318, 0, 0xa0, 0xf38, parts_531},
    {"5.3.1, quantum of 8", Family::v531, 0x3008, 0x13b00, 0x13b08, 0x48, 0x3018, 0x3040, 0x7c30, 0xc820,
     0x11520, 0x11c18, 0x12318, 0, 0xa0, 0xf68, parts_531},
    {"dev", Family::dev, 0x3048, 0x18900, 0x18908, 0x48, 0x3058, 0x3060, 0x7c50, 0xc840, 0x16130, 0x16828,
     0x16f28, 0, 0xa0, 0xf38, parts_dev},
};

}  // namespace

std::span<const KnownLayout> known_layouts() {
  return layouts;
}

}  // namespace jemtrace::locate
