/*
 * Is linked with libjemalloc.a and catches jemalloc's own calls of madvise and munmap, to walk its stack by a table of
 * call sites exactly as the kernel side does. usage: walk_program TABLE
 *
 * TABLE: struct entry[], ascending. Prints a line per call, "advice purpose cause frame frame ..." with return
 * addresses as file offsets in hex, and jemalloc's own counters as "key=value". "phase=NAME" lines between.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jemtrace/abi.h"

int mallctl(const char *name, void *oldp, size_t *oldlenp, void *newp, size_t newlen);

struct entry {
	uint64_t return_offset;
	struct jt_site site;
};

#define UNMAPPED (-1) /* instead of an advice */

static const struct entry *table;
static size_t n_entries;
static uintptr_t text_start, text_end, text_offset; /* this program's executable mapping */

static unsigned ticks; /* reported since the phase began */

static const struct entry *find(uint64_t address)
{
	uint64_t offset = address - text_start + text_offset;
	size_t low = 0, high = n_entries;

	if (address < text_start || address >= text_end)
		return NULL;
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (table[middle].return_offset < offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low < n_entries && table[low].return_offset == offset ? &table[low] : NULL;
}

/* No allocation from here: we are inside the allocator. */
static void report(int advice, const uint64_t *slot, uint64_t bp)
{
	char line[512];
	int length = 0, purpose = JT_FOREIGN, cause = JT_CAUSE_TICK, depth;
	char frames[400] = "";

	for (depth = 0; depth < 24; depth++) {
		const struct entry *entry = find(*slot);
		uint64_t rsp = (uint64_t)(slot + 1), cfa;

		if (!entry) {
			if (purpose == JT_PASS)
				purpose = JT_UNCLASSIFIED;
			break;
		}
		length += snprintf(frames + length, sizeof(frames) - length, " %" PRIx64,
				   (uint64_t)(*slot - text_start + text_offset));
		if (purpose == JT_FOREIGN || purpose == JT_PASS)
			purpose = entry->site.purpose;
		if (entry->site.cause) {
			cause = entry->site.cause;
			break;
		}
		if (entry->site.cfa_register == JT_CFA_NONE)
			break;
		cfa = (entry->site.cfa_register == JT_CFA_SP ? rsp : bp) + entry->site.cfa_offset;
		if (entry->site.saved_bp)
			bp = *(const uint64_t *)(cfa + entry->site.saved_bp);
		slot = (const uint64_t *)(cfa - 8);
	}
	if (cause == JT_CAUSE_TICK && purpose == JT_PURGE_SWEEP)
		ticks++;
	length = snprintf(line, sizeof(line), "%d %d %d%s\n", advice, purpose, cause, frames);
	if (write(1, line, length) < 0)
		abort();
}

__attribute__((noinline)) int madvise(void *address, size_t length, int advice)
{
	const uint64_t *frame = __builtin_frame_address(0); /* our caller's rbp, then the return address */

	if (table)
		report(advice, frame + 1, frame[0]);
	return (int)syscall(SYS_madvise, address, length, advice);
}

__attribute__((noinline)) int munmap(void *address, size_t length)
{
	const uint64_t *frame = __builtin_frame_address(0);

	if (table)
		report(UNMAPPED, frame + 1, frame[0]);
	return (int)syscall(SYS_munmap, address, length);
}

static void find_text(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	uintptr_t here = (uintptr_t)&find_text;

	while (maps && fgets(line, sizeof(line), maps)) {
		uintptr_t start, end, offset;

		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %" SCNxPTR, &start, &end, &offset) == 3 &&
		    start <= here && here < end) {
			text_start = start;
			text_end = end;
			text_offset = offset;
		}
	}
	if (maps)
		fclose(maps);
}

static void load_table(const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat status;

	if (fd < 0 || fstat(fd, &status) != 0)
		abort();
	n_entries = status.st_size / sizeof(struct entry);
	table = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
}

static void print_counter(const char *name)
{
	char path[64];
	uint64_t value = 0;
	size_t size = sizeof(value);

	snprintf(path, sizeof(path), "stats.arenas.4096.%s", name);
	if (mallctl(path, &value, &size, NULL, 0) != 0)
		abort();
	dprintf(1, "%s=%" PRIu64 "\n", name, value);
}

static void phase(const char *name)
{
	ticks = 0;
	dprintf(1, "phase=%s\n", name);
}

static void allocate_and_free(size_t size, int n)
{
	void **objects = malloc(n * sizeof(*objects));

	for (int i = 0; i < n; i++)
		memset(objects[i] = malloc(size), 1, size);
	for (int i = 0; i < n; i++)
		free(objects[i]);
	free(objects);
}

static void *volatile escaped; /* or the compiler drops allocations that nobody uses */

static void control(const char *name)
{
	if (mallctl(name, NULL, NULL, NULL, 0) != 0)
		abort();
}

static void *short_lived(void *unused)
{
	unsigned arena;
	size_t size = sizeof(arena);

	(void)unused;
	/* An arena of its own: when its last thread leaves, it is purged. */
	if (mallctl("arenas.create", &arena, &size, NULL, 0) != 0 ||
	    mallctl("thread.arena", NULL, NULL, &arena, sizeof(arena)) != 0)
		abort();
	allocate_and_free(20000, 100);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	uint64_t epoch = 1;

	if (argc < 2)
		return 2;
	setvbuf(stdout, NULL, _IONBF, 0);
	find_text();
	load_table(argv[1]);

	phase("purge");
	allocate_and_free(20000, 100);
	control("arena.0.purge");

	phase("decay");
	allocate_and_free(20000, 100);
	for (int i = 0; i < 5; i++) {
		usleep(20000);
		control("arena.0.decay");
	}

	phase("tick");
	allocate_and_free(20000, 100);
	/* Whether a tick meets pages that are due depends on how this program is scheduled. */
	for (int i = 0; i < 10 || (!ticks && i < 60); i++) {
		usleep(20000);
		allocate_and_free(20000, 2000 / 10);
	}
	control("arena.0.purge");

	phase("oversize");
	/* Mappings grow in steps, and extents do not merge across them: 8 MiB take this many. */
	allocate_and_free(20000, 6000);

	phase("zero");
	for (int i = 0; i < 20; i++) {
		escaped = malloc(1 << 20);
		memset((void *)escaped, 1, 1 << 20);
		free(escaped);
		escaped = calloc(1, 1 << 20);
		free(escaped);
	}

	phase("thread");
	if (pthread_create(&thread, NULL, short_lived, NULL) != 0)
		abort();
	pthread_join(thread, NULL);

	phase("end");
	control("arena.4096.purge");
	mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch));
	print_counter("dirty_nmadvise");
	print_counter("muzzy_nmadvise");
	return 0;
}
