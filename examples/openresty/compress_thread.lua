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

-- From `from` to the end of `to`, in one step: there is room for the worst.
local function pack(from, to)
    local stream = ffi.new "z_stream"
    if zlib.deflateInit2_(stream, LEVEL, DEFLATED, GZIP, MEMORY, 0,
        zlib.zlibVersion(), ffi.sizeof(stream)) ~= 0 then
        return "zlib is out of memory"
    end
    local bound = tonumber(zlib.deflateBound(stream, #from))
    stream.next_in, stream.avail_in = from:ref()
    stream.next_out, stream.avail_out = to:reserve(bound)
    local status = zlib.deflate(stream, FINISH)
    to:commit(tonumber(stream.total_out))
    zlib.deflateEnd(stream)
    return status ~= STREAM_END and "zlib gave status " .. status or nil
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

return { gzip = gzip }
