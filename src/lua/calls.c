#include "bytes.h"
#include "calls.h"
#include "checksum.h"
#include "failure.h"
#include "file.h"
#include "lend.h"
#include "scope.h"
#include "sink.h"
#include "varint.h"

const struct bufpool_calls bp_ffi_calls = {
	.grow = bp_bytes_grow,
	.resize = bp_bytes_resize,
	.extend = bp_bytes_extend,
	.grant = bp_bytes_grant,
	.commit = bp_bytes_commit,
	.expose = bp_bytes_expose,
	.store = bp_bytes_store,
	.fill = bp_bytes_fill,
	.xor_range = bp_bytes_xor,
	.overwrite = bp_bytes_overwrite,
	.assign = bp_bytes_assign,
	.append = bp_bytes_append,
	.append_range = bp_bytes_append_range,
	.take = bp_bytes_take,
	.split = bp_bytes_split,
	.compare = bp_bytes_compare,
	.equal_ct = bp_bytes_equal_ct,
	.find = bp_bytes_find,
	.find_plain = bp_bytes_find_plain,
	.find_any = bp_bytes_find_any,
	.crc32 = bp_checksum_crc32,
	.adler32 = bp_checksum_adler32,
	.read = bp_file_read,
	.write = bp_file_write,
	.fread = bp_file_fread,
	.fwrite = bp_file_fwrite,
	.free = bp_bytes_free,
	.wipe = bp_bytes_wipe,
	.consume = bp_bytes_consume,
	.put = bp_append_put,
	.put_handle = bp_append_put_handle,
	.varint_size = bp_varint_size,
	.put_varint = bp_varint_put,
	.get_varint = bp_varint_get,
	.peek_varint = bp_varint_peek,
	.borrow = bp_handle_borrow,
	.scope_open = bp_scope_open,
	.scope_borrow = bp_scope_borrow,
	.release = bp_handle_release,
	.freeze = bp_handle_freeze,
	.detach = bp_handle_detach,
	.descriptor = bp_buf_at,
	.descriptors = bp_buf_table_limit,
	.rest = bp_file_rest,
	.frest = bp_file_frest,
	.shortage = bp_failure_shortage,
	.message = bp_failure_message,
	.lend_frozen = bp_lend_frozen,
	.lend_copy = bp_lend_copy,
	.take_back = bp_lend_take_back,
	.sink_open = bp_sink_open,
	.sink_handle = bp_sink_handle,
};
