/*
 * prefault, huge_pages and dump have their effect on memory, as the kernel
 * tells it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "bufpool.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

/* Whether all pages that hold a part of [at, at + n) are in memory; with
 * `all` false, whether one of them is. */
static bool
resident(const void *at, size_t n, bool all)
{
	static unsigned char is[8192];
	size_t page = in_pages(0), before = (uintptr_t)at % page;
	size_t pages = in_pages(before + n) / page, sum = 0;

	assert_in_range(pages, 1, sizeof is);
	assert_int_equal(mincore((void *)((uintptr_t)at - before), before + n,
				 is), 0);
	for (size_t i = 0; i < pages; i++)
		sum += is[i] & 1;
	return all ? sum == pages : sum > 0;
}

static void
assert_prefaulted(int prefault, int huge_pages)
{
	static const size_t sizes[] = { 4096, 65536, 262144, 1048576, 3000000 };
	struct bufpool_config config;
	struct bufpool_buf *held[4];
	struct bufpool *p;

	bufpool_config_init(&config);
	config.prefault = prefault;
	config.huge_pages = huge_pages;
	p = bufpool_create(&config);
	assert_non_null(p);
	for (size_t i = 0; i < 5; i++)
		for (int again = 0; again < 2; again++) {
			size_t n = sizes[i];

			for (int j = 0; j < 4; j++) {
				held[j] = bufpool_checkout(p, n);
				assert_non_null(held[j]);
				/* The one before may have touched the page. */
				if (prefault || n >= in_pages(0))
					assert_int_equal(resident(
					    bufpool_peek(held[j]), n,
					    prefault), prefault);
				assert_all_zero(held[j]);
			}
			for (int j = 0; j < 4; j++)
				bufpool_release(held[j]);
			bufpool_trim(p);
			/* assert_all_zero has read what the trim keeps. */
			if (!prefault)
				break;
		}
	bufpool_destroy(p);
}

static void
prefault_has_the_pages_there_at_checkout(void **state)
{
	(void)state;
	needs_advice();
	assert_prefaulted(1, 0);
	assert_prefaulted(1, 1);
	assert_prefaulted(0, 0);
}

/* Finds the line that begins with key, in /proc/self/smaps, for the mapping
 * that holds the address. Copies what follows the key to value. */
static bool
smaps(const void *at, const char *key, char *value, size_t size)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	char line[512];
	bool inside = false, found = false;

	assert_non_null(file);
	while (!found && fgets(line, sizeof line, file) != NULL) {
		unsigned long first, end;

		if (sscanf(line, "%lx-%lx ", &first, &end) == 2)
			inside = first <= (uintptr_t)at && (uintptr_t)at < end;
		else if (inside && strncmp(line, key, strlen(key)) == 0) {
			snprintf(value, size, "%s", line + strlen(key));
			found = true;
		}
	}
	fclose(file);
	return found;
}

/* The first line of a file of the kernel about huge pages. */
static void
huge_setting(const char *name, char line[128])
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof path, "/sys/kernel/mm/transparent_hugepage/%s",
		 name);
	file = fopen(path, "r");
	if (file == NULL || fgets(line, 128, file) == NULL)
		line[0] = '\0';
	if (file != NULL)
		fclose(file);
}

/* They have 2 MiB where pages have 4 KiB, and are larger where those are. */
static bool
huge_pages_can_be_had(void)
{
	char enabled[128], size[128];

	huge_setting("enabled", enabled);
	huge_setting("hpage_pmd_size", size);
	return (strstr(enabled, "[madvise]") || strstr(enabled, "[always]")) &&
		atol(size) <= 2 << 20;
}

static void
huge_pages_are_asked_for(void **state)
{
	static const size_t sizes[] = { 4096, 65536, 1048576, 2097152,
					9000000 };
	const size_t huge = (size_t)2 << 20;
	struct bufpool_config config;
	struct bufpool_buf *held[5];
	char line[512];
	long sum = 0;
	struct bufpool *p;

	(void)state;
	needs_advice();
	bufpool_config_init(&config);
	config.huge_pages = 1;
	p = bufpool_create(&config);
	assert_non_null(p);
	for (size_t i = 0; i < 5; i++) {
		held[i] = bufpool_checkout(p, sizes[i]);
		assert_non_null(held[i]);
		needs(smaps(bufpool_peek(held[i]), "VmFlags:", line, 512),
		      "no VmFlags in /proc/self/smaps");
		assert_non_null(strstr(line, " hg"));
		if (sizes[i] >= huge)
			assert_int_equal((uintptr_t)bufpool_peek(held[i]) %
					 huge, 0);
		memset(bufpool_data(held[i]), 1, sizes[i]);
		assert_true(smaps(bufpool_peek(held[i]), "AnonHugePages:",
				  line, 512));
		sum += atol(line);
	}
	for (size_t i = 0; i < 5; i++)
		bufpool_release(held[i]);
	assert_conserved(p);
	bufpool_destroy(p);
	p = new_pool(1, 0, 0);
	held[0] = bufpool_checkout(p, 65536);
	smaps(bufpool_peek(held[0]), "VmFlags:", line, 512);
	assert_null(strstr(line, " hg"));
	bufpool_release(held[0]);
	bufpool_destroy(p);
	needs(huge_pages_can_be_had(), "no huge pages of 2 MiB");
	assert_true(sum > 0);
}

/* Whatever the size of a class is, its memory comes in huge pages. */
static void
spans_are_made_of_huge_pages(void **state)
{
	static const struct bufpool_class_config classes[] = {
		{ 4096, 1 }, { 12288, 0 }, { 1396736, 0 }, { 2101248, 1 },
		{ 3145728, 0 }, { 9437184, 0 }
	};
	const size_t huge = (size_t)2 << 20;
	struct bufpool_config config;
	struct bufpool_buf *held[6][30];
	size_t spans = 0;
	struct bufpool *p;

	(void)state;
	needs_advice();
	bufpool_config_init(&config);
	config.huge_pages = 1;
	config.classes = classes;
	config.class_count = 6;
	p = bufpool_create(&config);
	assert_non_null(p);
	for (size_t c = 0; c < 6; c++)
		for (int i = 0; i < 30; i++) {
			char line[512];

			held[c][i] = bufpool_checkout(p, classes[c].size);
			assert_non_null(held[c][i]);
			*(char *)bufpool_data(held[c][i]) = 1;
			if (smaps(held[c][i]->base, "VmFlags:", line, 512))
				assert_non_null(strstr(line, " hg"));
		}
	for (uint32_t i = 0; i < bp_buf_table_used(); i++) {
		struct bufpool_buf *b = bp_buf_at(i);

		if (b->arena != held[0][0]->arena || b->span == 0)
			continue;
		assert_int_equal(b->span % huge, 0);
		assert_int_equal((uintptr_t)b->base % huge, 0);
		spans++;
	}
	assert_in_range(spans, 6, 180);
	for (size_t c = 0; c < 6; c++)
		for (int i = 0; i < 30; i++)
			bufpool_release(held[c][i]);
	assert_conserved(p);
	bufpool_destroy(p);
}

#define MIB ((size_t)1 << 20)

/* Descriptors, caches, the C library, and a page that nothing else shares. */
#define SLACK ((256 << 10) + 2 * in_pages(0))

static const size_t sizes[] = { 1, 65536, 262144, 1048576 };

static struct bufpool *
huge_pool(size_t max_bytes)
{
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.four_kib_count = config.sixty_four_kib_count = 0;
	config.two_fifty_six_kib_count = 0;
	config.max_bytes = max_bytes;
	config.huge_pages = 1;
	p = bufpool_create(&config);
	assert_non_null(p);
	return p;
}

/* What a huge page takes counts, however little of it is asked for. */
static void
what_huge_pages_take_is_committed(void **state)
{
	static const size_t limits[] = { 0, 64 * MIB, 2 * MIB, MIB };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct bufpool *p = huge_pool(limits[i]);
		size_t before = resident_bytes(), committed, full, gone;
		struct bufpool_buf *held[4] = { NULL };
		size_t count = limits[i] == MIB ? 3 : 4;

		for (size_t c = 0; c < count; c++) {
			held[c] = bufpool_checkout(p, sizes[c]);
			assert_non_null(held[c]);
			memset(bufpool_data(held[c]), 1, sizes[c]);
		}
		full = resident_bytes();
		committed = stats_of(p).committed_bytes;
		if (!SANITIZED)
			assert_true(full - before <= committed + SLACK);
		for (size_t c = 0; c < count; c++)
			bufpool_release(held[c]);
		gone = bufpool_trim(p);
		assert_int_equal(gone, committed);
		assert_int_equal(stats_of(p).committed_bytes, 0);
		if (!SANITIZED)
			assert_in_range(resident_bytes(), before,
					before + SLACK);
		assert_conserved(p);
		bufpool_destroy(p);
	}
}

/* What a huge page has beyond that makes room for what is asked for. */
static void
huge_pages_cost_nobody_a_checkout(void **state)
{
	struct bufpool *p = huge_pool(4 * MIB);
	struct bufpool_buf *held[4 * 256];
	size_t n = 0, left = 4 * MIB;

	(void)state;
	for (size_t c = 0; c < 4; c++) {
		size_t size = c == 0 ? 4096 : sizes[c];

		held[n] = bufpool_checkout(p, size);
		assert_non_null(held[n++]);
		left -= size;
	}
	for (; left > 0; left -= 4096)
		assert_non_null(held[n++] = bufpool_checkout(p, 1));
	assert_int_equal(stats_of(p).committed_bytes, 4 * MIB);
	assert_null(bufpool_checkout(p, 1));
	while (n > 0)
		bufpool_release(held[--n]);
	held[0] = bufpool_checkout(p, 4 * MIB);
	assert_non_null(held[0]);
	bufpool_release(held[0]);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* Of every buffer, wherever its memory came from, and after it has grown. */
static void
contents_stay_out_of_core_dumps(void **state)
{
	static const size_t lengths[] = { 4096, 65536, 262144, 1048576,
					  3000000 };
	struct bufpool_config config;
	char line[512];

	(void)state;
	needs_advice();
	bufpool_config_init(&config);
	for (config.dump = 0; config.dump < 2; config.dump++)
		for (size_t i = 0; i < 5; i++) {
			struct bufpool *p = bufpool_create(&config);
			struct bufpool_buf *b = bufpool_checkout(p, lengths[i]);

			for (int k = 0; k < 3; k++) {
				assert_non_null(b);
				needs(smaps(bufpool_peek(b), "VmFlags:", line,
					    sizeof line), "no VmFlags");
				assert_int_equal(strstr(line, " dd") == NULL,
						 config.dump);
				if (k == 0)
					assert_int_equal(bufpool_resize(
					    b, 2 * lengths[i]), 0);
				else if (k == 1) {
					bufpool_release(b);
					bufpool_trim(p);
					b = bufpool_checkout(p, lengths[i]);
				}
			}
			bufpool_release(b);
			bufpool_destroy(p);
		}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prefault_has_the_pages_there_at_checkout),
		cmocka_unit_test(huge_pages_are_asked_for),
		cmocka_unit_test(spans_are_made_of_huge_pages),
		cmocka_unit_test(what_huge_pages_take_is_committed),
		cmocka_unit_test(huge_pages_cost_nobody_a_checkout),
		cmocka_unit_test(contents_stay_out_of_core_dumps),
	};

	return cmocka_run_group_tests_name("pages", tests, NULL, NULL);
}
