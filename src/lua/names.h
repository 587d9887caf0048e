/*
 * names - what the linker sees. A static library shows the names of its
 * objects to the program that links it, so all of ours begin with bufpool_.
 * The sources use the short names below; every header of src/lua includes this
 * one first.
 */
#ifndef BUFPOOL_LUA_NAMES_H
#define BUFPOOL_LUA_NAMES_H

#define append bufpool_lua_append
#define append_grow bufpool_lua_append_grow
#define append_put bufpool_lua_append_put
#define append_put_handle bufpool_lua_append_put_handle
#define argument_bad bufpool_lua_argument_bad
#define argument_reject bufpool_lua_argument_reject
#define argument_size_slow bufpool_lua_argument_size_slow
#define box_cookie_drawn bufpool_lua_box_cookie_drawn
#define box_draw_cookie bufpool_lua_box_draw_cookie
#define box_functions bufpool_lua_box_functions
#define box_kinds bufpool_lua_box_kinds
#define box_states bufpool_lua_box_states
#define buffer_meta bufpool_lua_buffer_meta
#define buffer_methods bufpool_lua_buffer_methods
#define bytes_append bufpool_lua_bytes_append
#define bytes_assign bufpool_lua_bytes_assign
#define bytes_commit bufpool_lua_bytes_commit
#define bytes_compare bufpool_lua_bytes_compare
#define bytes_equal_ct bufpool_lua_bytes_equal_ct
#define bytes_expose bufpool_lua_bytes_expose
#define bytes_extend bufpool_lua_bytes_extend
#define bytes_fill bufpool_lua_bytes_fill
#define bytes_find bufpool_lua_bytes_find
#define bytes_find_plain bufpool_lua_bytes_find_plain
#define bytes_fread bufpool_lua_bytes_fread
#define bytes_fwrite bufpool_lua_bytes_fwrite
#define bytes_grant bufpool_lua_bytes_grant
#define bytes_grow bufpool_lua_bytes_grow
#define bytes_overwrite bufpool_lua_bytes_overwrite
#define bytes_read bufpool_lua_bytes_read
#define bytes_resize bufpool_lua_bytes_resize
#define bytes_store bufpool_lua_bytes_store
#define bytes_write bufpool_lua_bytes_write
#define calls_claim_clock bufpool_lua_calls_claim_clock
#define calls_deliver bufpool_lua_calls_deliver
#define collector_pay_slow bufpool_lua_collector_pay_slow
#define collector_reclaim bufpool_lua_collector_reclaim
#define config_push_defaults bufpool_lua_config_push_defaults
#define config_read bufpool_lua_config_read
#define copy_push_boxes bufpool_lua_copy_push_boxes
#define copy_push_refusal bufpool_lua_copy_push_refusal
#define copy_sign bufpool_lua_copy_sign
#define ffi_calls bufpool_lua_ffi_calls
#define frozen_meta bufpool_lua_frozen_meta
#define frozen_methods bufpool_lua_frozen_methods
#define guard_allowed bufpool_lua_guard_allowed
#define guard_call bufpool_lua_guard_call
#define guard_works bufpool_lua_guard_works
#define number_text bufpool_lua_number_text
#define plain_method bufpool_lua_plain_method
#define pool_functions bufpool_lua_pool_functions
#define pool_meta bufpool_lua_pool_meta
#define pool_methods bufpool_lua_pool_methods
#define scope_borrow bufpool_lua_scope_borrow
#define scope_end bufpool_lua_scope_end
#define scope_open bufpool_lua_scope_open
#define sink_handle bufpool_lua_sink_handle
#define sink_open bufpool_lua_sink_open
#define stats_of_all bufpool_lua_stats_of_all
#define stats_of_pool bufpool_lua_stats_of_pool
#define ticket_functions bufpool_lua_ticket_functions

#endif
