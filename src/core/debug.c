#define _GNU_SOURCE
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "debug.h"
#include "name.h"

#define PLACES 20	/* that a report names of a pool */
#define SEPARATORS ", :;"

static const struct word {
	const char *name;
	int detection;
	bool verify, report, harden;
	int fail_one_in;
	const char *help;
} words[] = {
	{ .name = "leak", .detection = BUFPOOL_LEAK_ALL, .report = true,
	  .help = "records each checkout; at exit lists what is out, by place"
	},
	{ .name = "sample", .detection = BUFPOOL_LEAK_SAMPLED, .report = true,
	  .help = "the same for one checkout of about 1024" },
	{ .name = "verify", .detection = BUFPOOL_LEAK_ALL, .verify = true,
	  .help = "aborts where a buffer was written to after its release" },
	{ .name = "harden", .detection = BUFPOOL_LEAK_ALL, .harden = true,
	  .help = "guards each buffer: a store past its end or after its "
		  "release stops the program there" },
	{ .name = "fail", .detection = BUFPOOL_LEAK_ALL, .fail_one_in = 100,
	  .help = "fails every 100th checkout; fail=n every nth" },
};
#define WORDS (sizeof words / sizeof *words)

static void
print_help(void)
{
	fprintf(stderr, "bufpool: BUFPOOL_DEBUG has words with commas between "
		"them:\n");
	for (size_t i = 0; i < WORDS; i++)
		fprintf(stderr, "  %-8s%s\n", words[i].name, words[i].help);
}

static void
print_unknown(const char *name, size_t n)
{
	char shown[100];

	bp_name_show(shown, n < sizeof shown ? n + 1 : sizeof shown, name);
	fprintf(stderr, "bufpool: BUFPOOL_DEBUG: '%s' is unknown; "
		"BUFPOOL_DEBUG=help lists the words\n", shown);
}

static const struct word *
word_of(const char *name, size_t n)
{
	for (size_t i = 0; i < WORDS; i++)
		if (strlen(words[i].name) == n &&
		    memcmp(words[i].name, name, n) == 0)
			return &words[i];
	return NULL;
}

/* Adds a word of n bytes to what all of them ask for. False when it is none. */
static bool
add_word(struct word *all, const char *at, size_t n)
{
	const char *equals = memchr(at, '=', n);
	const struct word *word = word_of(at, equals == NULL ? n
					  : (size_t)(equals - at));
	char *end = NULL;
	long value = equals != NULL ? strtol(equals + 1, &end, 10) : 0;

	if (word == NULL || (equals != NULL && (
		word->fail_one_in == 0 || value < 1 || value > INT_MAX ||
		end != at + n)))
		return false;
	if (word->detection > all->detection)
		all->detection = word->detection;
	all->verify |= word->verify;
	all->report |= word->report;
	all->harden |= word->harden;
	if (word->fail_one_in != 0)
		all->fail_one_in = equals != NULL ? (int)value
		    : word->fail_one_in;
	return true;
}

static _Atomic bool reporting;	/* a pool was made when that was wanted */

/* What all words together ask for. Not for a program with more rights than its
 * user, who may not make it tell anything. */
static struct word
wanted(void)
{
	static _Atomic bool told;
	const char *at = secure_getenv("BUFPOOL_DEBUG");
	struct word all = { .detection = BUFPOOL_LEAK_OFF };
	bool first;

	if (at == NULL)
		return all;
	first = !atomic_exchange(&told, true);
	for (size_t n; *(at += strspn(at, SEPARATORS)) != '\0'; at += n) {
		n = strcspn(at, SEPARATORS);
		if (add_word(&all, at, n))
			continue;
		if (first && n == 4 && memcmp(at, "help", n) == 0)
			print_help();
		else if (first)
			print_unknown(at, n);
	}
	return all;
}

void
bp_debug_apply(struct bufpool_config *config)
{
	struct word all = wanted();

	if (all.detection > config->leak_detection)
		config->leak_detection = all.detection;
	config->verify |= all.verify;
	if (all.fail_one_in > 0)
		config->fail_one_in = all.fail_one_in;
	if (all.harden)
		config->hardened = BUFPOOL_HARDENED_ALL;
	if (all.report)
		atomic_store(&reporting, true);
}

bool
bp_debug_reports(void)
{
	return atomic_load(&reporting);
}

/* What is left to the end of a request is no mistake, and not told. */
static void
print_place(const struct bufpool_site *s, const char *name, const char *when)
{
	fprintf(stderr, "bufpool: %s %llu buffers (%llu bytes) of pool '%s' "
		"are out, and %llu were left to a Lua collector, checked out "
		"at %s\n", when, (unsigned long long)s->buffers,
		(unsigned long long)s->bytes, name,
		(unsigned long long)s->gc_returns, s->place);
}

/* A function of its own, for its stack is large. */
static __attribute__((noinline)) void
print_places(struct bufpool *p, const char *when)
{
	struct bufpool_site site[PLACES];
	size_t count = bufpool_sites(p, site, PLACES);
	char name[BUFPOOL_NAME_MAX];

	bp_name_show(name, sizeof name, p->name[0] != '\0' ? p->name
		     : "(unnamed)");
	for (size_t i = 0; i < count && i < PLACES; i++)
		if ((site[i].buffers | site[i].gc_returns) != 0)
			print_place(&site[i], name, when);
}

void
bp_debug_report(struct bufpool *p, const char *when)
{
	if (bp_debug_reports())
		print_places(p, when);
}
