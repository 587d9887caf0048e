-- What runs in the worker thread, in a Lua VM of its own.
local ffi = require "ffi"
local bufpool = require "bufpool"

ffi.cdef [[
typedef struct {
    const uint8_t *next_in; unsigned avail_in; unsigned long total_in;
    uint8_t *next_out; unsigned avail_out; unsigned long total_out;
    const char *msg; void *state, *zalloc, *zfree, *opaque;
    int data_type; unsigned long adler, reserved;
} z_stream;
const char *zlibVersion(void);
int deflateInit2_(z_stream *, int level, int method, int window, int memory,
    int strategy, const char *version, int size);
int deflate(z_stream *, int flush);
int deflateEnd(z_stream *);
unsigned long deflateBound(z_stream *, unsigned long n);
]]

local zlib = ffi.load "libz.so.1"
local LEVEL, DEFLATED, GZIP, MEMORY = 1, 8, 31, 8
local FINISH, STREAM_END = 4, 1

-- From n bytes at `from` to what `room` gives for the most that may come, in
-- one step. How many came; or nil and a message.
local function deflate(from, n, room)
    local stream = ffi.new "z_stream"
    if zlib.deflateInit2_(stream, LEVEL, DEFLATED, GZIP, MEMORY, 0,
        zlib.zlibVersion(), ffi.sizeof(stream)) ~= 0 then
        return nil, "zlib is out of memory"
    end
    stream.next_in, stream.avail_in = from, n
    stream.next_out, stream.avail_out = room(tonumber(
        zlib.deflateBound(stream, n)))
    local status = zlib.deflate(stream, FINISH)
    zlib.deflateEnd(stream)
    if status ~= STREAM_END then
        return nil, "zlib gave status " .. status
    end
    return tonumber(stream.total_out)
end

-- From `from` to the end of `to`. A message where it failed.
local function pack(from, to)
    local bytes, n = from:ref()
    local count, message = deflate(bytes, n, function(bound)
        return to:reserve(bound)
    end)
    to:commit(count or 0)
    return message
end

-- The ticket of what the ticket stands for, compressed; or nil and a message.
local function gzip(ticket)
    local from, message = bufpool.adopt(ticket)
    if not from then
        return nil, message
    end
    local to
    to, message = bufpool.get("app"):writer(#from)
    if not to then
        from:release()
        return nil, message
    end
    message = pack(from, to)
    from:release()
    if message then
        to:release()
        return nil, message
    end
    return to:detach()
end

-- The same with strings, for today.lua.
local function gzip_string(text)
    local out
    local n = assert(deflate(text, #text, function(bound)
        out = ffi.new("uint8_t[?]", bound)
        return out, bound
    end))
    return ffi.string(out, n)
end

return { gzip = gzip, gzip_string = gzip_string }
