/*
 * sanitize - what AddressSanitizer and ThreadSanitizer must be told about a
 * pool. In ordinary builds all of it is empty.
 *
 * ASan: the memory of a buffer that nobody has out is poisoned, so that a use
 * after release is reported as if the pool were malloc.
 * TSan: Concurrency Kit orders memory by fences, which TSan does not model. So
 * accesses inside the ring calls are ignored, and only there, and the order
 * that the ring gives to the buffer it carries is declared buffer by buffer.
 * TSan does not see either what the system zeroes (madvise) or moves (mremap);
 * that order is declared where it happens. A race of the pool's own stays
 * visible.
 */
#ifndef BUFPOOL_SANITIZE_H
#define BUFPOOL_SANITIZE_H

#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1
#endif
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define SANITIZE_NO_ADDRESS __attribute__((no_sanitize_address))
#else
#define SANITIZE_NO_ADDRESS
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);

static inline void
tsan_ring_begin(void)
{
	AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
	AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}

static inline void
tsan_ring_end(void)
{
	AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
	AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
#define tsan_give(p) __tsan_release(p)
#define tsan_take(p) __tsan_acquire(p)
#else
#define tsan_ring_begin() ((void)0)
#define tsan_ring_end() ((void)0)
#define tsan_give(p) ((void)(p))
#define tsan_take(p) ((void)(p))
#endif

#endif
