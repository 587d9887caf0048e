/*
 * names - the prefix that keeps the core's names apart from a host's own.
 *
 * A static library shows every name that its files share. So each of ours
 * carries the library's prefix in the object files, and not in the sources.
 * `make lint` finds a name that is missing here.
 */
#ifndef BUFPOOL_NAMES_H
#define BUFPOOL_NAMES_H

#define pages_map bufpool_pages_map
#define pages_unmap bufpool_pages_unmap
#define table_extend bufpool_table_extend
#define table_init bufpool_table_init

#define layout_init bufpool_layout_init

#define system_now bufpool_system_now
#define system_random bufpool_system_random

#define name_find bufpool_name_find
#define name_init bufpool_name_init
#define name_list bufpool_name_list

#define buf_at bufpool_buf_at
#define buf_compact bufpool_buf_compact
#define buf_consume bufpool_buf_consume
#define buf_corrupt bufpool_buf_corrupt
#define buf_create bufpool_buf_create
#define buf_destroy bufpool_buf_destroy
#define buf_move bufpool_buf_move
#define buf_pop bufpool_buf_pop
#define buf_push bufpool_buf_push
#define buf_sum bufpool_buf_sum
#define buf_swap_memory bufpool_buf_swap_memory
#define buf_table_init bufpool_buf_table_init
#define buf_table_limit bufpool_buf_table_limit
#define buf_table_used bufpool_buf_table_used
#define buf_wipe bufpool_buf_wipe

#define commons_after_fork bufpool_commons_after_fork
#define commons_create bufpool_commons_create
#define commons_destroy bufpool_commons_destroy
#define commons_push bufpool_commons_push
#define commons_take bufpool_commons_take
#define depot_create bufpool_depot_create
#define depot_destroy bufpool_depot_destroy
#define depot_is_full bufpool_depot_is_full
#define depot_push bufpool_depot_push
#define depot_ready bufpool_depot_ready
#define depot_take bufpool_depot_take
#define depot_take_some bufpool_depot_take_some

#define arena_create bufpool_arena_create
#define arena_destroy bufpool_arena_destroy
#define arena_drop bufpool_arena_drop
#define arena_extend bufpool_arena_extend
#define arena_give bufpool_arena_give
#define arena_give_blanks bufpool_arena_give_blanks
#define arena_has_addresses bufpool_arena_has_addresses
#define arena_init bufpool_arena_init
#define arena_node bufpool_arena_node
#define arena_nodes bufpool_arena_nodes
#define arena_pages_by_node bufpool_arena_pages_by_node
#define arena_retry bufpool_arena_retry
#define arena_shrink bufpool_arena_shrink
#define arena_span bufpool_arena_span
#define arena_take bufpool_arena_take
#define arena_take_bare bufpool_arena_take_bare
#define arena_take_large bufpool_arena_take_large
#define arena_try_ref bufpool_arena_try_ref
#define arena_whole_pages bufpool_arena_whole_pages

#define cache_after_fork bufpool_cache_after_fork
#define cache_attach bufpool_cache_attach
#define cache_close bufpool_cache_close
#define cache_create bufpool_cache_create
#define cache_destroy bufpool_cache_destroy
#define cache_flush bufpool_cache_flush
#define cache_hold bufpool_cache_hold
#define cache_init bufpool_cache_init
#define cache_mark_depot bufpool_cache_mark_depot
#define cache_no_shelf bufpool_cache_no_shelf
#define cache_retire bufpool_cache_retire
#define cache_unmark_depot bufpool_cache_unmark_depot
#define caches_create bufpool_caches_create
#define caches_destroy bufpool_caches_destroy
#define caches_drain_commons bufpool_caches_drain_commons
#define caches_put_common bufpool_caches_put_common
#define shelf_claim bufpool_shelf_claim
#define shelf_leave_slow bufpool_shelf_leave_slow
#define shelf_open bufpool_shelf_open
#define shelf_spill bufpool_shelf_spill
#define shelf_unclaim bufpool_shelf_unclaim

#define large_after_fork bufpool_large_after_fork
#define large_close bufpool_large_close
#define large_create bufpool_large_create
#define large_destroy bufpool_large_destroy
#define large_give_back bufpool_large_give_back
#define large_give_up bufpool_large_give_up
#define large_put bufpool_large_put
#define large_shed bufpool_large_shed
#define large_take bufpool_large_take

#define cgroup_limit bufpool_cgroup_limit

#define forked_begin bufpool_forked_begin
#define forked_settle bufpool_forked_settle
#define forked_settle_slow bufpool_forked_settle_slow
#define forked_state bufpool_forked_state

#define expiry_expect bufpool_expiry_expect
#define expiry_next bufpool_expiry_next
#define expiry_put_back bufpool_expiry_put_back
#define expiry_take bufpool_expiry_take

#define home_uncached bufpool_home_uncached

#define ticket_after_fork bufpool_ticket_after_fork
#define ticket_expire bufpool_ticket_expire
#define ticket_init bufpool_ticket_init
#define ticket_kind bufpool_ticket_kind
#define ticket_next bufpool_ticket_next
#define ticket_share bufpool_ticket_share

#define thread_after_fork bufpool_thread_after_fork
#define thread_cache bufpool_thread_cache
#define thread_forget bufpool_thread_forget
#define thread_init bufpool_thread_init
#define thread_next bufpool_thread_next
#define thread_resume bufpool_thread_resume
#define thread_nobody bufpool_thread_nobody
#define thread_self bufpool_thread_self

#define stats_bytes_out bufpool_stats_bytes_out
#define stats_cached bufpool_stats_cached
#define stats_checkouts bufpool_stats_checkouts
#define stats_out bufpool_stats_out
#define stats_ready bufpool_stats_ready
#define stats_releases bufpool_stats_releases
#define stats_sample bufpool_stats_sample
#define stats_sample_tick bufpool_stats_sample_tick

#define settings_difference bufpool_settings_difference
#define settings_layout bufpool_settings_layout
#define settings_read bufpool_settings_read
#define settings_ticket_ttl bufpool_settings_ticket_ttl

#define registry_finish bufpool_registry_finish
#define registry_next bufpool_registry_next

#define wipe_from_end bufpool_wipe_from_end
#define wipe_init bufpool_wipe_init
#define wipe_window bufpool_wipe_window

#define trim_addresses bufpool_trim_addresses
#define trim_bytes bufpool_trim_bytes
#define trim_idle bufpool_trim_idle
#define trim_maintain bufpool_trim_maintain
#define trim_spilled bufpool_trim_spilled
#define trim_released bufpool_trim_released

#define cache_maintain_slow bufpool_cache_maintain_slow
#define checkout_large_slow bufpool_checkout_large_slow
#define checkout_slow bufpool_checkout_slow
#define large_extend_slow bufpool_large_extend_slow

#define release_slow bufpool_release_slow

#define checkout_at bufpool_checkout_at
#define release_gc bufpool_release_gc
#define release_turned bufpool_release_turned

#define frozen_unref_gc bufpool_frozen_unref_gc

#define grow_free bufpool_grow_free
#define grow_renew bufpool_grow_renew
#define grow_to bufpool_grow_to

#endif
