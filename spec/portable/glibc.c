/*
 * What Debian's libraries, which are built for glibc, call in there, and musl
 * does not have. Linked into a LuaJIT that is built with musl, so that libgcc
 * unwinds and busted finds its files.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>

int fcntl64(int fd, int command, void *arg);

int
fcntl64(int fd, int command, void *arg)
{
	return fcntl(fd, command, arg);
}

/* libgcc's own, under a version that musl does not look for. */
unsigned __cpu_model[4];
int __cpu_indicator_init(void);

int
__cpu_indicator_init(void)
{
	return 0;
}

/* As in glibc's dlfcn.h, on x86-64. */
struct found {
	uint64_t flags;
	void *start, *end, *map, *frames;
	uint64_t reserved[7];
};

struct search {
	uintptr_t pc;
	struct found *found;
};

int _dl_find_object(void *pc, struct found *found);

/* Where the frames are of what a code address lies in. */
static int
look_in(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct search *search = arg;
	const ElfW(Phdr) *frames = NULL;
	int is_here = 0;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + p->p_vaddr;

		if (p->p_type == PT_GNU_EH_FRAME)
			frames = p;
		if (p->p_type == PT_LOAD && search->pc - start < p->p_memsz) {
			search->found->start = (void *)start;
			search->found->end = (void *)(start + p->p_memsz);
			is_here = 1;
		}
	}
	if (!is_here || frames == NULL)
		return 0;
	search->found->frames = (void *)(info->dlpi_addr + frames->p_vaddr);
	return 1;
}

int
_dl_find_object(void *pc, struct found *found)
{
	struct search search = { (uintptr_t)pc, found };

	*found = (struct found){ 0 };
	return dl_iterate_phdr(look_in, &search) ? 0 : -1;
}
