// The Rust pools for bench/core. A buffer stays where the caller keeps it,
// between take and give, as the value that the pool's own interface returns.
// Both pools wipe a whole buffer themselves, so nobody asks what was dirtied.
// Each may keep as many buffers as the cell has; all else is by default.

use santh_bufpool::{BufferPool, PoolBuffer, PoolConfig};
use std::mem::size_of;
use std::sync::OnceLock;
use zeropool::{Buf, ZeroPool};

const STATE: usize = 40; // bytes of state in bench/core's struct held
const _: () = assert!(size_of::<PoolBuffer>() <= STATE);
const _: () = assert!(size_of::<Buf<'static>>() <= STATE);

struct Pool<T> {
    pool: T,
    class: usize,
}

static SANTH: OnceLock<Pool<BufferPool>> = OnceLock::new();
static ZEROPOOL: OnceLock<Pool<ZeroPool>> = OnceLock::new();

fn started<T>(cell: &'static OnceLock<Pool<T>>) -> &'static Pool<T> {
    cell.get().expect("started")
}

#[no_mangle]
pub extern "C" fn santh_start(
    class: usize,
    buffers: usize,
    _cached: usize,
    _threads: u32,
) -> bool {
    let of = |size| if size == class { buffers } else { 0 };
    let pool = BufferPool::new(PoolConfig {
        four_kib_count: of(4 << 10),
        sixty_four_kib_count: of(64 << 10),
        two_fifty_six_kib_count: of(256 << 10),
        one_mib_count: of(1 << 20),
        numa_node: None,
    });
    SANTH.set(Pool { pool, class }).is_ok()
}

/// # Safety
/// `state` has room for STATE bytes.
#[no_mangle]
pub unsafe extern "C" fn santh_take(state: *mut PoolBuffer) -> *mut u8 {
    let Pool { pool, class } = started(&SANTH);
    let mut buffer = pool.checkout(*class).expect("a buffer");
    let bytes = buffer.as_mut_ptr();
    state.write(buffer);
    bytes
}

/// # Safety
/// `state` is as santh_take has left it.
#[no_mangle]
pub unsafe extern "C" fn santh_give(state: *mut PoolBuffer, _: usize) {
    drop(state.read());
}

#[no_mangle]
pub extern "C" fn zeropool_start(
    class: usize,
    buffers: usize,
    _cached: usize,
    _threads: u32,
) -> bool {
    let pool = ZeroPool::new().max_buffers_per_class(buffers);
    ZEROPOOL.set(Pool { pool, class }).is_ok()
}

/// # Safety
/// `state` has room for STATE bytes.
#[no_mangle]
pub unsafe extern "C" fn zeropool_take(state: *mut Buf<'static>) -> *mut u8 {
    let Pool { pool, class } = started(&ZEROPOOL);
    let mut buffer = pool.alloc(*class);
    let bytes = buffer.as_mut_ptr();
    state.write(buffer);
    bytes
}

/// # Safety
/// `state` is as zeropool_take has left it.
#[no_mangle]
pub unsafe extern "C" fn zeropool_give(state: *mut Buf<'static>, _: usize) {
    drop(state.read());
}
