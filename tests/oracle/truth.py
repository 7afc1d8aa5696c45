"""Where the functions of an image really are: from its symbol table, or, for a distribution's stripped library, from
the object files of the archive beside it.

Debian links libjemalloc.so.2 and libjemalloc_pic.a from the same objects. Linking changes code only where a relocation
says so: an object's code section is found again in the library by all its other bytes. It must be somewhere in there,
so if they fit in one place only, that is the place. They fit in several only for sections of a few bytes, what gcc moves
out of functions: a call of abort(), say. Those stay unknown.
"""

import subprocess
import tempfile
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

# Bytes that the linker writes at a relocation, as (before, after) its offset: the field, and for loads from the GOT
# that it relaxes (psABI, B.2) the instruction before it. x86-64 relocation types by their numbers.
R_64, R_GOTPCRELX, R_REX_GOTPCRELX = 1, 41, 42
LEA = 0x8d
WRITTEN = {R_64: (0, 8), R_GOTPCRELX: (2, 4), R_REX_GOTPCRELX: (3, 4)}
WRITTEN_OTHERWISE = (0, 4)


class Truth:
    """The functions of an image: name as spelled -> addresses. Several functions of one name are possible (static ones
    of several objects), and several names at one address (aliases, folded identical code)."""

    def __init__(self):
        self.functions = {}
        self.objects = {}  # variables, likewise
        self.placed_bytes = self.all_bytes = 0  # of the archive's code

    def add(self, name, address):
        self.functions.setdefault(name, set()).add(address)

    def of_object(self, name):
        return {address for spelled, addresses in self.objects.items() for address in addresses
                if role_of(spelled) == name}

    def of_role(self, role):
        """The addresses of a function by jemalloc's name for it: without the prefix of private names, and as whatever
        a compiler made of it (.part.0, .constprop.0, .llvm.123) except a .cold piece, which nobody calls."""
        return {address for name, addresses in self.functions.items() for address in addresses
                if role_of(name) == role}


def role_of(name):
    base, _, suffix = name.partition(".")
    if "cold" in suffix:
        return None
    return base.removeprefix("_rjem_").removeprefix("je_")


def from_symbols(path):
    """Of an image that is not stripped."""
    truth = Truth()
    with open(path, "rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        for symbol in table.iter_symbols():
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF":
                truth.add(symbol.name, symbol["st_value"])
            elif symbol["st_info"]["type"] == "STT_OBJECT":
                truth.objects.setdefault(symbol.name, set()).add(symbol["st_value"])
    return truth


def from_archive(library, archive):
    """Of a stripped library, by the objects that it was linked from."""
    truth = Truth()
    with open(library, "rb") as file:
        section = ELFFile(file).get_section_by_name(".text")
        text, text_address = section.data(), section["sh_addr"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["ar", "x", Path(archive).resolve()], cwd=folder, check=True)
        for path in sorted(Path(folder).iterdir()):
            with open(path, "rb") as file:
                place_object(ELFFile(file), text, text_address, truth)
    return truth


def place_object(elf, text, text_address, truth):
    for index, section in enumerate(elf.iter_sections()):
        if not section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR:
            continue
        truth.all_bytes += section["sh_size"]
        places = find_places(text, fixed_pieces(elf, index)) if section["sh_size"] else []
        if len(places) != 1:
            continue
        truth.placed_bytes += section["sh_size"]
        for symbol in elf.get_section_by_name(".symtab").iter_symbols():
            if symbol["st_shndx"] == index and symbol["st_info"]["type"] == "STT_FUNC":
                truth.add(symbol.name, text_address + places[0] + symbol["st_value"])
        place_variables(elf, index, text, text_address, places[0], truth)


def place_variables(elf, index, text, text_address, place, truth):
    """What code loads through the GOT: where the linker knew the address it has put it into the instruction instead, a
    lea of so many bytes from its end."""
    for section in elf.iter_sections():
        if section["sh_type"] != "SHT_RELA" or section["sh_info"] != index:
            continue
        for entry in section.iter_relocations():
            at = place + entry["r_offset"]
            if entry["r_info_type"] == R_REX_GOTPCRELX and text[at - 2] == LEA:
                name = elf.get_section(section["sh_link"]).get_symbol(entry["r_info_sym"]).name
                distance = int.from_bytes(text[at:at + 4], "little", signed=True)
                truth.objects.setdefault(name, set()).add(text_address + at + 4 + distance)


def fixed_pieces(elf, index):
    """The bytes of a section that linking keeps, as (offset, bytes) in order."""
    code = elf.get_section(index).data()
    pieces, begin = [], 0
    for offset, kind in sorted(relocations(elf, index)):
        before, after = WRITTEN.get(kind, WRITTEN_OTHERWISE)
        if offset - before > begin:
            pieces.append((begin, code[begin:offset - before]))
        begin = offset + after
    pieces.append((begin, code[begin:]))
    return pieces


def relocations(elf, index):
    for section in elf.iter_sections():
        if section["sh_type"] == "SHT_RELA" and section["sh_info"] == index:
            yield from ((entry["r_offset"], entry["r_info_type"]) for entry in section.iter_relocations())


def find_places(text, pieces):
    """All offsets in `text` where every piece is found at its distance: looked for by the longest one."""
    anchor_offset, anchor = max(pieces, key=lambda piece: len(piece[1]))
    places = []
    at = text.find(anchor)
    while at >= 0:
        begin = at - anchor_offset
        if begin >= 0 and all(text.startswith(piece, begin + offset) for offset, piece in pieces):
            places.append(begin)
        at = text.find(anchor, at + 1)
    return places
