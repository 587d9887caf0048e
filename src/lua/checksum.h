/*
 * checksum - CRC-32 and Adler-32, which zlib works out. zlib is not linked but
 * loaded when a process first asks for a checksum: few programs do.
 */
#ifndef BUFPOOL_LUA_CHECKSUM_H
#define BUFPOOL_LUA_CHECKSUM_H

#include "bytes.h"

/* calls.h says what they take and return; -ENOSYS means that zlib 1.2.9 or
 * later was not found. Any thread, for objects of its own. */
bufpool_checksum_fn bp_checksum_crc32, bp_checksum_adler32;

#endif
