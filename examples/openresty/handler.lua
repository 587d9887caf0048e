-- A response assembled from many pieces in a pooled buffer, and its digest.
-- The pieces are Lua strings, small and short-lived; the megabytes that they
-- make up never are one.
local bufpool = require "bufpool"
local ffi = require "ffi"

ffi.cdef [[
unsigned char *SHA256(const unsigned char *, size_t, unsigned char *);
]]

local function load_crypto()
    for _, name in ipairs { "crypto", "libcrypto.so.3", "libcrypto.so.1.1" } do
        local ok, lib = pcall(ffi.load, name)
        if ok then
            return lib
        end
    end
    error("OpenSSL's libcrypto is missing")
end

local crypto = load_crypto()
local sum = ffi.new "unsigned char[32]"
local pool = bufpool.default()      -- of this worker process

local HINT = 1048576                -- bytes that a response usually takes
local PIECES_MAX = 1000000

local function sha256(buf)
    local at, n = buf:ref()
    crypto.SHA256(at, n, sum)
    return (ffi.string(sum, 32):gsub(".", function(c)
        return ("%02x"):format(c:byte())
    end))
end

-- Line i holds its number, and i % 100 dots.
local function assemble(out, pieces)
    for i = 1, pieces do
        out:put(i, " ", ("."):rep(i % 100), "\n")
    end
end

local function answer(status, json, ...)
    ngx.status = status
    ngx.say(json:format(...))
end

local handler = {}

-- GET /digest?pieces=N
function handler.digest()
    local pieces = tonumber(ngx.var.arg_pieces or 50000)
    if not pieces or not (pieces >= 0 and pieces <= PIECES_MAX)
        or pieces % 1 ~= 0 then
        return answer(400, '{"error":"pieces: a whole number, 0 to %d"}',
            PIECES_MAX)
    end

    -- with() releases the buffer when the function returns or raises; in
    -- between it may yield to nginx.
    local length, digest = pool:with(HINT, function(out)
        out:reset()                 -- empty, with its memory
        assemble(out, pieces)
        return #out, sha256(out)
    end)
    if not length then              -- out of memory
        return answer(503, '{"error":%q}', digest)
    end
    answer(200, '{"pieces":%d,"length":%d,"sha256":"%s"}', pieces, length,
        digest)
end

-- GET /stats: of the worker that answers
function handler.stats()
    local stats = pool:stats()
    answer(200, '{"pid":%d,"hits":%d,"misses":%d,"checked_out":%d,'
        .. '"committed_bytes":%d}', ngx.worker.pid(), stats.hits,
        stats.misses, stats.checked_out, stats.committed_bytes)
end

return handler
