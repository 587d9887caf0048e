---@meta

-- What editors are told of bufpool, as LuaCATS annotations. Nothing runs this
-- file: it is installed beside the others, for lua-language-server to find, and
-- is no part of libbufpool_lua.a. doc/api.md tells more.

---A size, count or position: a number, or an integer that C returned.
---@alias bufpool.Integer integer|ffi.cdata*
---What can be stored: as an integer it wraps.
---@alias bufpool.Number number|ffi.cdata*
---What can be written, put, searched for and compared with.
---@alias bufpool.Data string|number|bufpool.Reader
---An open file, or the number of a file descriptor.
---@alias bufpool.File file*|integer
---@alias bufpool.ReadInteger fun(self, i: bufpool.Integer): integer
---@alias bufpool.ReadInt64 fun(self, i: bufpool.Integer): ffi.cdata*
---@alias bufpool.ReadFloat fun(self, i: bufpool.Integer): number
---@alias bufpool.GetInteger fun(self): integer
---@alias bufpool.GetInt64 fun(self): ffi.cdata*
---@alias bufpool.GetFloat fun(self): number
---@alias bufpool.SetNumber fun(self, i: bufpool.Integer, v: bufpool.Number):
---bufpool.Buffer
---@alias bufpool.PutNumbers fun(self, ...: bufpool.Number): bufpool.Buffer
---@alias bufpool.Checkout fun(self, n: bufpool.Integer):
---bufpool.Buffer?, string?
---@alias bufpool.CheckoutAligned fun(self, n: bufpool.Integer,
---alignment: bufpool.Integer): bufpool.Buffer?, string?
---@alias bufpool.Writer fun(self, hint?: bufpool.Integer,
---headroom?: bufpool.Integer): bufpool.Buffer?, string?
---What print and say take.
---@alias bufpool.Printable string|number|boolean|nil|bufpool.Reader|table

---@class bufpool.Config
---@field four_kib_count? integer buffers of 4 KiB kept ready (64)
---@field sixty_four_kib_count? integer buffers of 64 KiB kept ready (8)
---@field two_fifty_six_kib_count? integer those of 256 KiB (2)
---@field one_mib_count? integer those of 1 MiB (0)
---@field classes? bufpool.ClassConfig[] instead of the four; up to 16
---@field large_bytes? integer kept above the largest class (128 MiB or less)
---@field max_bytes? integer limit on all memory of the pool (none)
---@field numa_node? integer|"local" where its memory should be
---@field prefault? boolean memory has its pages when handed out
---@field huge_pages? boolean ask the kernel for huge pages
---@field dump? boolean whether core dumps have the contents
---@field hardened? boolean|"sampled" whether buffers are guarded (false)
---@field fault_report? boolean say whose buffer it was where a guard stops
---@field wipe_on_fork? boolean whether a child of fork finds zeros (false)
---@field fail_one_in? integer every so many'th checkout fails (0: none)
---@field verify? boolean whether recorded checkouts look for stray writes
---@field ticket_ttl? number seconds a ticket is good (for ever; in nginx 60)
---@field leak_detection? bufpool.Detection which checkouts are recorded ("off")
---@field leak_sample? integer for "sampled": one of so many checkouts
---@field name? string opens the pool of this name, or makes it

---@alias bufpool.Detection "off"|"sampled"|"all"

---@class bufpool.DetectionConfig
---@field leak_detection? bufpool.Detection
---@field leak_sample? integer

---@class bufpool.Site
---@field place string "handlers/upload.lua:41 < router.lua:12", callers last
---@field buffers integer recorded and out now
---@field bytes integer of memory behind these
---@field oldest number seconds since the first of these was checked out
---@field gc_returns integer those that the collector had to release, ever since
---@field request_returns integer left to the end of their request, ever since

---@class bufpool.Report : bufpool.Site
---@field pool? string the name of the pool
---@field more integer of gc_returns, those that were not told before

---@class bufpool.ClassConfig
---@field size integer bytes; a multiple of 4096
---@field count? integer buffers kept ready (0)

---@class bufpool.ClassStats
---@field size integer bytes of one buffer
---@field count integer buffers with memory behind them
---@field ready integer
---@field cached integer
---@field out integer
---@field hits integer
---@field misses integer
---@field floor integer
---@field shelf integer
---@field requested_bytes integer
---@field requests integer[]

---@class bufpool.LargeStats
---@field hits integer served from what was kept
---@field misses integer took fresh memory
---@field out integer
---@field bytes_out integer
---@field cached integer
---@field cached_bytes integer
---@field requested_bytes integer
---@field requests integer[]

---@class bufpool.NumaStats
---@field requested? integer|"local"
---@field available boolean the node asked for has memory here
---@field pages_by_node table<integer, integer>

---@class bufpool.Stats
---@field hits integer
---@field misses integer
---@field checked_out integer
---@field peak_checked_out integer
---@field bytes_checked_out integer
---@field peak_bytes_checked_out integer
---@field committed_bytes integer
---@field cached_bytes integer
---@field in_transit integer
---@field wiped_bytes integer
---@field gc_returns integer
---@field lost integer
---@field refused_by_max_bytes integer
---@field refused_by_system integer
---@field lock_refused integer
---@field lock_limit integer
---@field max_bytes integer
---@field large_bytes integer
---@field exhausted integer
---@field pressed_bytes integer
---@field oldest? number seconds
---@field classes bufpool.ClassStats[]
---@field large bufpool.LargeStats
---@field numa bufpool.NumaStats

---@class bufpool.PoolStats : bufpool.Stats
---@field sites? bufpool.Site[] the first of sites(); with leak detection only

---@class bufpool.Totals : bufpool.Stats
---@field pools table<string, bufpool.Stats> by name

---@class bufpool
---@field _VERSION string
---@field default fun(): bufpool.Pool?, string? the pool named "default"
---@field get fun(name: string): bufpool.Pool? the pool of that name
---@field heed_pressure fun(on: boolean) whether a short cgroup is heeded
---@field maintain fun(): number seconds until it wants to be called again
local bufpool = {}

---What a ticket stands for; or nil and a message. A ticket is good once, in the
---process that has issued it, whichever Lua VM.
---@param ticket bufpool.Integer what detach or share returned
---@return bufpool.Buffer|bufpool.Frozen|nil object
---@return string? message
function bufpool.adopt(ticket) end

---The statistics of all pools of the process, added up.
---@return bufpool.Totals
function bufpool.stats() end

---Tells of the places whose buffers the collector had to release since they
---were last told, each at most once a minute.
---@param fn fun(report: bufpool.Report)
---@return integer count how often it has called fn
function bufpool.report(fn) end

---Folded stacks, for flame graphs: a line for each place that has bytes out.
---@param list bufpool.Site[] what sites or close returned
---@return string
function bufpool.folded(list) end

---A profile for pprof, not compressed, of buffers and bytes that are out.
---@param list bufpool.Site[] what sites or close returned
---@return string
function bufpool.pprof(list) end

---Writes the items of a list, one behind the other; consumes nothing.
---@param file bufpool.File
---@param list bufpool.Data[] up to 1024
---@return integer? bytes written, possibly fewer
---@return string? message
---@return integer? errno
function bufpool.writev(file, list) end

---What `x` is to bufpool: "dead" for what was released. Never raises.
---@param x any
---@return "pool"|"buffer"|"frozen"|"handle"|"dead"|nil
function bufpool.type(x) end

---A pool; or nil and a message when memory is short.
---@param config? bufpool.Config
---@return bufpool.Pool? pool
---@return string? message
function bufpool.new(config) end

---@class bufpool.Reader
---@field u8 bufpool.ReadInteger
---@field i8 bufpool.ReadInteger
---@field u16le bufpool.ReadInteger
---@field u16be bufpool.ReadInteger
---@field i16le bufpool.ReadInteger
---@field i16be bufpool.ReadInteger
---@field u24le bufpool.ReadInteger
---@field u24be bufpool.ReadInteger
---@field i24le bufpool.ReadInteger
---@field i24be bufpool.ReadInteger
---@field u32le bufpool.ReadInteger
---@field u32be bufpool.ReadInteger
---@field i32le bufpool.ReadInteger
---@field i32be bufpool.ReadInteger
---@field u64le bufpool.ReadInt64
---@field u64be bufpool.ReadInt64
---@field i64le bufpool.ReadInt64
---@field i64be bufpool.ReadInt64
---@field f32le bufpool.ReadFloat
---@field f32be bufpool.ReadFloat
---@field f64le bufpool.ReadFloat
---@field f64be bufpool.ReadFloat
---Reads values by a format of Lua 5.3's string.unpack from position i on, and
---gives the position after them last. Integers of up to four bytes are numbers,
---wider ones int64_t or uint64_t.
---@field unpack fun(self, i: bufpool.Integer, fmt: string): ...any
local reader = {}

---@return integer
function reader:len() end

---@return string
function reader:tostring() end

---@param i bufpool.Integer
---@param j? bufpool.Integer
---@return string
function reader:sub(i, j) end

---The bytes i to j as numbers; by default the first, or the one at i.
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@return integer ...
function reader:byte(i, j) end

---As string.find, without patterns. Pattern characters need `plain`.
---@param needle bufpool.Data
---@param init? bufpool.Integer
---@param plain? boolean
---@return integer? first
---@return integer? last
function reader:find(needle, init, plain) end

---Where the first byte at or after `init` is that is one of `bytes`.
---@param bytes bufpool.Data
---@param init? bufpool.Integer
---@return integer? position
function reader:find_any(bytes, init) end

---For a loop over the lines, without the "\n" at their end.
---@return fun(): string? iterator
function reader:lines() end

---@param other bufpool.Data
---@return boolean
function reader:equals(other) end

---As equals, in constant time for equal lengths.
---@param other bufpool.Data
---@return boolean
function reader:equals_ct(other) end

---The CRC-32 of a range, as zlib's; `before` is that of the bytes before it.
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@param before? bufpool.Number
---@return integer
function reader:crc32(i, j, before) end

---The Adler-32 of a range; `before` is that of the bytes before it.
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@param before? bufpool.Number
---@return integer
function reader:adler32(i, j, before) end

---What takes numbers off the front.
---@class bufpool.Consumer
---@field get_u8 bufpool.GetInteger
---@field get_i8 bufpool.GetInteger
---@field get_u16le bufpool.GetInteger
---@field get_u16be bufpool.GetInteger
---@field get_i16le bufpool.GetInteger
---@field get_i16be bufpool.GetInteger
---@field get_u24le bufpool.GetInteger
---@field get_u24be bufpool.GetInteger
---@field get_i24le bufpool.GetInteger
---@field get_i24be bufpool.GetInteger
---@field get_u32le bufpool.GetInteger
---@field get_u32be bufpool.GetInteger
---@field get_i32le bufpool.GetInteger
---@field get_i32be bufpool.GetInteger
---@field get_u64le bufpool.GetInt64
---@field get_u64be bufpool.GetInt64
---@field get_i64le bufpool.GetInt64
---@field get_i64be bufpool.GetInt64
---@field get_f32le bufpool.GetFloat
---@field get_f32be bufpool.GetFloat
---@field get_f64le bufpool.GetFloat
---@field get_f64be bufpool.GetFloat
---@field get_varint bufpool.GetInteger
---@field get_zigzag bufpool.GetInteger
---@field get_varint64 bufpool.GetInt64
---@field get_zigzag64 bufpool.GetInt64

---@class bufpool.Buffer : bufpool.Reader, bufpool.Consumer, bufpool.FileReader
---@operator len: integer
---@operator concat(bufpool.Data): string
---@field set_u8 bufpool.SetNumber
---@field set_i8 bufpool.SetNumber
---@field set_u16le bufpool.SetNumber
---@field set_u16be bufpool.SetNumber
---@field set_i16le bufpool.SetNumber
---@field set_i16be bufpool.SetNumber
---@field set_u24le bufpool.SetNumber
---@field set_u24be bufpool.SetNumber
---@field set_i24le bufpool.SetNumber
---@field set_i24be bufpool.SetNumber
---@field set_u32le bufpool.SetNumber
---@field set_u32be bufpool.SetNumber
---@field set_i32le bufpool.SetNumber
---@field set_i32be bufpool.SetNumber
---@field set_u64le bufpool.SetNumber
---@field set_u64be bufpool.SetNumber
---@field set_i64le bufpool.SetNumber
---@field set_i64be bufpool.SetNumber
---@field set_f32le bufpool.SetNumber
---@field set_f32be bufpool.SetNumber
---@field set_f64le bufpool.SetNumber
---@field set_f64be bufpool.SetNumber
---@field put_u8 bufpool.PutNumbers
---@field put_i8 bufpool.PutNumbers
---@field put_u16le bufpool.PutNumbers
---@field put_u16be bufpool.PutNumbers
---@field put_i16le bufpool.PutNumbers
---@field put_i16be bufpool.PutNumbers
---@field put_u24le bufpool.PutNumbers
---@field put_u24be bufpool.PutNumbers
---@field put_i24le bufpool.PutNumbers
---@field put_i24be bufpool.PutNumbers
---@field put_u32le bufpool.PutNumbers
---@field put_u32be bufpool.PutNumbers
---@field put_i32le bufpool.PutNumbers
---@field put_i32be bufpool.PutNumbers
---@field put_u64le bufpool.PutNumbers
---@field put_u64be bufpool.PutNumbers
---@field put_i64le bufpool.PutNumbers
---@field put_i64be bufpool.PutNumbers
---@field put_f32le bufpool.PutNumbers
---@field put_f32be bufpool.PutNumbers
---@field put_f64le bufpool.PutNumbers
---@field put_f64be bufpool.PutNumbers
---@field put_varint bufpool.PutNumbers
---@field put_zigzag bufpool.PutNumbers
---Writes values by a format of Lua 5.3's string.pack from position i on, over
---what is there, and past the end, where the buffer grows. Alignment counts
---from position 1.
---@field pack fun(self, i: bufpool.Integer, fmt: string, ...: any):
---bufpool.Buffer
---@field release fun(self) wiped and given back; dead from here on
---@field freeze fun(self): bufpool.Frozen where it is, without a copy
---@field detach fun(self): integer?, string? a ticket for bufpool.adopt
---Appends values that are data or have a __tostring.
---@field put fun(self, ...: bufpool.Data|table|userdata): bufpool.Buffer
local buffer = {}

---Bytes that the contents may grow to without moving.
---@return integer
function buffer:capacity() end

---Overwrites the bytes from i on; values wrap.
---@param i bufpool.Integer
---@param ... bufpool.Number
---@return bufpool.Buffer
function buffer:setbyte(i, ...) end

---Overwrites the bytes from i on; never grows.
---@param i bufpool.Integer
---@param v bufpool.Data
---@return bufpool.Buffer
function buffer:write(i, v) end

---Overwrites the bytes from i on with a range of source, which may overlap
---them.
---@param i bufpool.Integer
---@param source bufpool.Data
---@param from? bufpool.Integer
---@param to? bufpool.Integer
---@return bufpool.Buffer
function buffer:copy(i, source, from, to) end

---Overwrites a range with one byte; the number wraps.
---@param v bufpool.Number
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@return bufpool.Buffer
function buffer:fill(v, i, j) end

---XORs a range with the bytes of the key, which is repeated; byte i meets byte
---`at` of it.
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@param key bufpool.Data
---@param at? bufpool.Integer
---@return bufpool.Buffer
function buffer:xor(i, j, key, at) end

---Zeroes all memory and empties the buffer.
---@return bufpool.Buffer
function buffer:wipe() end

---Empties the buffer and gives its memory back; it may be used again.
---@return bufpool.Buffer
function buffer:free() end

---Sets the length; new bytes are zero.
---@param n bufpool.Integer
---@return bufpool.Buffer
function buffer:resize(n) end

---Appends the result of string.format(fmt, ...).
---@param fmt string
---@param ... any
---@return bufpool.Buffer
function buffer:putf(fmt, ...) end

---Appends the bytes i to j of data. Of the buffer itself j may be past the end:
---then bytes that have just been appended are read again.
---@param x bufpool.Data
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@return bufpool.Buffer
function buffer:put_range(x, i, j) end

---Puts data in front of the contents. Copies only that where so many bytes have
---been consumed, or are left of the headroom.
---@param x bufpool.Data
---@return bufpool.Buffer
function buffer:prepend(x) end

---Moves the first n bytes of another buffer to the end; all without n.
---@param from bufpool.Buffer
---@param n? bufpool.Integer
---@return bufpool.Buffer
function buffer:take(from, n) end

---A new buffer of the same pool with the first n bytes, which this one loses.
---@param n bufpool.Integer
---@return bufpool.Buffer? part
---@return string? message
function buffer:split_to(n) end

---Appends n bytes from a pointer.
---@param v ffi.cdata*
---@param n bufpool.Integer
---@return bufpool.Buffer
function buffer:putcdata(v, n) end

---Replaces the contents by a copy of data, or of n bytes from a pointer.
---@param v bufpool.Data|ffi.cdata*
---@param n? bufpool.Integer
---@return bufpool.Buffer
function buffer:set(v, n) end

---A pointer to the n bytes past the end, to be written. commit() appends them.
---@param n bufpool.Integer
---@return ffi.cdata* at
---@return integer n
function buffer:reserve(n) end

---Appends the first n of the bytes that reserve() granted.
---@param n bufpool.Integer
---@return bufpool.Buffer
function buffer:commit(n) end

---Takes bytes off the front, as one string for each length; all without one.
---@param ... bufpool.Integer?
---@return string ...
function buffer:get(...) end

---Takes n bytes off the front, or all when there are fewer.
---@param n bufpool.Integer
---@return bufpool.Buffer
function buffer:skip(n) end

---Empties the buffer and keeps its memory.
---@return bufpool.Buffer
function buffer:reset() end

---A pointer to the bytes, for reading and writing, and their number.
---@return ffi.cdata* at
---@return integer len
function buffer:ref() end

---@class bufpool.FileReader : bufpool.FileWriter
local file_reader = {}

---Appends up to n bytes; by default as many as there is room for, at least
---4096, and no more than a file of known size still has.
---@param file bufpool.File
---@param n? bufpool.Integer
---@return integer? bytes 0 at the end
---@return string? message
---@return integer? errno
function file_reader:readfrom(file, n) end

---Overwrites up to n bytes from i on; by default all. Never grows.
---@param i bufpool.Integer
---@param file bufpool.File
---@param n? bufpool.Integer
---@return integer? bytes 0 at the end
---@return string? message
---@return integer? errno
function file_reader:readinto(i, file, n) end

---@class bufpool.FileWriter
local file_writer = {}

---Writes a range of the bytes; consumes nothing.
---@param file bufpool.File
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@return integer? bytes written, possibly fewer
---@return string? message
---@return integer? errno
function file_writer:writeto(file, i, j) end

---Takes bytes off the front of a frozen object, which stays as it is.
---@class bufpool.FrozenReader : bufpool.Consumer
---@field of bufpool.Frozen
---@field at integer the position in it that is read next; may be set
local frozen_reader = {}

---How many bytes are left.
---@return integer
function frozen_reader:len() end

---The bytes that are left; consumes nothing.
---@return string
function frozen_reader:tostring() end

---Takes bytes off the front, as one string for each length; all without one.
---@param ... bufpool.Integer?
---@return string ...
function frozen_reader:get(...) end

---Takes n bytes off the front, or all when there are fewer.
---@param n bufpool.Integer
---@return bufpool.FrozenReader
function frozen_reader:skip(n) end

---@class bufpool.Frozen : bufpool.Reader, bufpool.FileWriter
---@operator len: integer
---@operator concat(bufpool.Data): string
---@field release fun(self) dead; the memory goes with its last owner
---@field clone fun(self): bufpool.Frozen another owner of the memory
---@field share fun(self): integer?, string? a ticket for bufpool.adopt
local frozen = {}

---A frozen object for the bytes i to j. It shares the memory.
---@param i bufpool.Integer
---@param j? bufpool.Integer
---@return bufpool.Frozen
function frozen:slice(i, j) end

---A read-only pointer to the bytes, and their number.
---@return ffi.cdata* at
---@return integer len
function frozen:ref() end

---Takes bytes off the front, as get and skip of a buffer do. Many readers may
---read one object.
---@return bufpool.FrozenReader
function frozen:reader() end

---@class bufpool.Handle : bufpool.Buffer
---@operator len: integer
---@operator concat(bufpool.Data): string
local handle = {}

---Gives the memory back. Every copy of the handle is stale afterwards.
function handle:release() end

---The contents as a frozen object, without a copy; the collector returns it.
---@return bufpool.Frozen
function handle:freeze() end

---Gives the buffer to whoever adopts the ticket. Every copy of the handle is
---stale afterwards.
---@return integer? ticket
---@return string? message
function handle:detach() end

---@class bufpool.Pool
---@field checkout bufpool.Checkout full, every byte zero
---@field checkout_zeroed bufpool.Checkout wiped again at this moment
---@field checkout_aligned bufpool.CheckoutAligned at a multiple of `alignment`
---@field try_checkout bufpool.Checkout only what is ready: or "exhausted"
---@field writer bufpool.Writer empty, to append to; with `headroom` bytes in
---front for prepend
---@field stats fun(self): bufpool.PoolStats
---@field resident fun(self): integer?, string? bytes with pages in memory
---@field trim fun(self, max_bytes?: bufpool.Integer): integer, boolean?
---bytes given back to the system, and whether there are more
---@field sites fun(self): bufpool.Site[] where what is out was checked out
---@field close fun(self): bufpool.Site[]? the handle is dead; what is out stays
---valid; where leak detection is on, sites() of this moment
local pool = {}

---Changes what leak detection records from now on.
---@param given bufpool.DetectionConfig
---@return bufpool.Pool?
---@return string? message
function pool:set(given) end

---A handle for n zero bytes; or nil and a message when memory is short. Only
---its release() or freeze() brings the memory back.
---@param n bufpool.Integer
---@return bufpool.Handle? handle
---@return string? message
function pool:borrow(n) end

---Calls fn(out, ...) with an empty buffer or handle and returns its results;
---out is released when fn returns or raises, unless fn gave it away. fn must
---not yield. out is what is cheaper: a handle with the JIT, else a buffer.
---@param fn fun(out: bufpool.Buffer, ...): ...
---@param ... any
---@return any ...
function pool:scratch(fn, ...) end

---Calls fn(buf, ...) and returns its results; the buffer is released when fn
---returns or raises, unless fn gave it away. fn may yield. A handler of errors
---around the call sees the frames of fn, with two exceptions: inside a
---coroutine, where fn can yield, and below a hundred calls of with. There the
---error is caught and raised again, unchanged, and the handler sees only the
---frames down to with: LuaJIT has no call that fn may yield in and that is told
---of an error without catching it.
---@param n bufpool.Integer
---@param fn fun(buf: bufpool.Buffer, ...): ...
---@param ... any
---@return any ...
function pool:with(n, fn, ...) end

---@class bufpool.Ngx
---@field zero_copy boolean whether ngx_http_bufpool_module is loaded and fits
local bufpool_ngx = {}

---As ngx.print, for buffers and frozen objects too. Where zero_copy is true,
---frozen memory is not copied if only frozen objects and buffers of at least
---4096 bytes are printed: it goes back when its last byte has left.
---@param ... bufpool.Printable
---@return integer? done 1
---@return string? message
function bufpool_ngx.print(...) end

---As print, with a line feed at the end.
---@param ... bufpool.Printable
---@return integer? done 1
---@return string? message
function bufpool_ngx.say(...) end

---The request body in a buffer. When the header announces more than `max`
---bytes, nothing is read.
---@param pool bufpool.Pool|bufpool.Scope
---@param max? bufpool.Integer bytes
---@return bufpool.Buffer|bufpool.Handle|nil buf
---@return string? message "too large", "no body", or why there is none
function bufpool_ngx.read_body(pool, max) end

---Calls fn(buf) for each piece of the request body, of 1 to n bytes, which is
---all that is in `buf` then. Returns how many bytes there were; or nil, a
---message, and how many fn has got.
---@param buf bufpool.Buffer
---@param n bufpool.Integer
---@param fn fun(buf: bufpool.Buffer)
---@return integer? bytes
---@return string? message
---@return integer? got
function bufpool_ngx.body_pieces(buf, n, fn) end

---In body_filter_by_lua: appends the chunk to `buf`.
---@param buf bufpool.Buffer
---@return boolean last whether it was the last chunk
function bufpool_ngx.body_filter(buf) end

---What has been captured of this request's response, from the first byte on.
---@return bufpool.Handle|bufpool.Buffer|nil buf nil when there is none
---@return string? problem why bytes are missing; nil when all are there
---@return integer? seen bytes that have passed
function bufpool_ngx.captured() end

---Has the body of this request's response copied, as it passes, into a buffer
---of `pool`, `max` bytes at most (1 MiB unless given).
---@param options { pool: bufpool.Pool, max?: bufpool.Integer }
---@return bufpool.Handle|bufpool.Buffer|nil buf empty now
---@return string? message why there is no memory
function bufpool_ngx.capture(options) end

---In body_filter_by_lua: captures the chunk, where no module does that.
function bufpool_ngx.capture_chunk() end

---@class bufpool.ngx.RewriteOptions
---@field pool bufpool.Pool
---@field max? bufpool.Integer bytes that are held; 1 MiB unless given
---@field fn fun(body: bufpool.Handle): bufpool.Printable?

---In header_filter_by_lua: has the response held, up to `max` bytes, and `fn`
---called once with all of the body. What `fn` returns is sent, or the body when
---it returns nothing. Its buffers are taken over.
---@param options bufpool.ngx.RewriteOptions
---@return boolean? rewritten true
---@return string? why the response is sent as it is
function bufpool_ngx.rewrite(options) end

---In body_filter_by_lua, before ngx.arg[1] is assigned: does what rewrite has
---promised.
function bufpool_ngx.rewrite_chunk() end

---An object with the methods of the pool, whose buffers are handles that are
---released when the request ends, however it ends; or nil and a message when
---memory is short.
---@param pool bufpool.Pool
---@param limits? { max_buffers?: bufpool.Integer, max_bytes?: bufpool.Integer }
---@return bufpool.Scope? scope
---@return string? message
function bufpool_ngx.scope(pool, limits) end

---As scope(pool):with(n, fn, ...).
---@param pool bufpool.Pool
---@param n bufpool.Integer
---@param fn fun(handle: bufpool.Handle, ...): ...
---@param ... any
---@return any ...
function bufpool_ngx.with(pool, n, fn, ...) end

---Sends all bytes of x, or of a table of several, in calls of about 64 KiB; a
---string is not divided. Returns how many bytes that were; or nil, what the
---socket said, and how many bytes were sent by the calls before.
---@param sock table
---@param x bufpool.Data|table
---@return integer? bytes
---@return string? message
---@return integer? sent
function bufpool_ngx.send(sock, x) end

---Appends n bytes to buf, in pieces of 64 KiB. Returns n; or nil, what the
---socket said, and how many bytes were appended before: those stay.
---@param sock table
---@param buf bufpool.Buffer
---@param n bufpool.Integer
---@return integer? bytes
---@return string? message
---@return integer? appended
function bufpool_ngx.receive(sock, buf, n) end

---Answers the request with the figures of all workers that publish theirs in
---the shared dictionary, or else with those of this worker: as JSON, metrics
---or a page, as ?format= or the Accept header says.
---@param options? bufpool.ngx.StatusOptions
function bufpool_ngx.status(options) end

---Publishes the figures of this worker in the shared dictionary, at once and
---then every second. To be called in init_worker_by_lua.
---@param options? bufpool.ngx.PublishOptions
---@return boolean? ok, string? message
function bufpool_ngx.publish(options) end

---@class bufpool.Scope
local scope = {}

---A handle for n zero bytes, released when the request ends, unless it was
---released, frozen or detached before; or nil and a message when memory is
---short.
---@param n bufpool.Integer
---@return bufpool.Handle? handle
---@return string? message
function scope:checkout(n) end

---The same: what a scope gives out are handles.
---@param n bufpool.Integer
---@return bufpool.Handle? handle
---@return string? message
function scope:borrow(n) end

---The same, wiped again at this moment.
---@param n bufpool.Integer
---@return bufpool.Handle? handle
---@return string? message
function scope:checkout_zeroed(n) end

---The same, at a multiple of `alignment`.
---@param n bufpool.Integer
---@param alignment bufpool.Integer
---@return bufpool.Handle? handle
---@return string? message
function scope:checkout_aligned(n, alignment) end

---The same, of what is ready; or nil and "exhausted".
---@param n bufpool.Integer
---@return bufpool.Handle? handle
---@return string? message
function scope:try_checkout(n) end

---The same, empty, with room for `hint` bytes, and in front of these for
---`headroom`.
---@param hint? bufpool.Integer
---@param headroom? bufpool.Integer
---@return bufpool.Handle? handle
---@return string? message
function scope:writer(hint, headroom) end

---@return bufpool.PoolStats # of the pool
function scope:stats() end

---@param max_bytes? bufpool.Integer
---@return integer # bytes that the pool gave back to the system
---@return boolean? more whether it could give back more than max_bytes
function scope:trim(max_bytes) end

---Calls fn(handle, ...) and returns its results. The handle is released when fn
---returns or raises, and when the request ends before that.
---@param n bufpool.Integer
---@param fn fun(handle: bufpool.Handle, ...): ...
---@param ... any
---@return any ...
function scope:with(n, fn, ...) end

---@class bufpool.ngx.PublishOptions
---@field dict? string the name of a lua_shared_dict ("bufpool")

---@class bufpool.ngx.StatusOptions : bufpool.ngx.PublishOptions
---@field allow_set? boolean PUT switches leak detection (false)
