/* The smallest program that has all of jemalloc in it: mallctl() reaches every part. PREFIX is that of the public API:
 * nothing, or _rjem_. */
#include <stddef.h>

#define JOIN_(prefix, name) prefix##name
#define JOIN(prefix, name) JOIN_(prefix, name)
#define API(name) JOIN(PREFIX, name)

void *API(malloc)(size_t size);
void API(free)(void *memory);
int API(mallctl)(const char *name, void *old, size_t *old_size, void *new, size_t new_size);

int main(void)
{
	void *memory = API(malloc)(1);
	int error = API(mallctl)("arena.0.purge", NULL, NULL, NULL, 0);

	API(free)(memory);
	return error;
}
