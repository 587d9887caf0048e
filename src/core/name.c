#include <string.h>

#include "name.h"
#include "table.h"

#define NAMES_MAX ((uint32_t)1 << 20)	/* different names in a process */
#define BUCKETS 4096

struct name {
	_Atomic uint64_t id;	/* of the pool that has it, or had it last */
	uint32_t next;		/* number of the next of its bucket, + 1 */
	char text[BUFPOOL_NAME_MAX];
};

static struct table names;
static _Atomic uint32_t bucket[BUCKETS];	/* number of a name, + 1 */

bool
bp_name_init(void)
{
	return bp_table_init(&names, sizeof(struct name), NAMES_MAX);
}

/* FNV-1a. */
static _Atomic uint32_t *
bucket_of(const char *text)
{
	uint32_t hash = 2166136261u;

	for (; *text != '\0'; text++)
		hash = (hash ^ (unsigned char)*text) * 16777619u;
	return &bucket[hash % BUCKETS];
}

static struct name *
search_name(uint32_t number, const char *text)
{
	while (number != 0) {
		struct name *n = table_at(&names, number - 1);

		if (strcmp(n->text, text) == 0)
			return n;
		number = n->next;
	}
	return NULL;
}

_Atomic uint64_t *
bp_name_find(const char *text)
{
	struct name *n = search_name(atomic_load(bucket_of(text)), text);

	return n != NULL ? &n->id : NULL;
}

/* The head changes whenever a name is listed, so an exchange that succeeds has
 * looked at all of the bucket. */
_Atomic uint64_t *
bp_name_list(const char *text)
{
	_Atomic uint32_t *head = bucket_of(text);
	uint32_t first = atomic_load(head);
	struct name *mine = NULL, *n;
	int64_t number = -1;

	do {
		n = search_name(first, text);
		if (n != NULL)
			return &n->id;	/* mine, if made, is never used */
		if (mine == NULL) {
			number = bp_table_extend(&names);
			if (number < 0)
				return NULL;
			mine = table_at(&names, (uint32_t)number);
			strcpy(mine->text, text);
		}
		mine->next = first;
	} while (!atomic_compare_exchange_strong(head, &first,
						 (uint32_t)number + 1));
	return &mine->id;
}

void
bp_name_show(char *to, size_t n, const char *text)
{
	size_t i;

	for (i = 0; i < n - 1 && text[i] != '\0'; i++)
		to[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f
		    ? '?' : text[i];
	to[i] = '\0';
}
