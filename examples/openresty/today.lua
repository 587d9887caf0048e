-- The same four as programs do them today, with strings of Lua, for `run` to
-- measure beside the others: /today/upload and so on.
local ffi = require "ffi"

ffi.cdef "unsigned char *SHA256(const char *, size_t, unsigned char *);"

local crypto = ffi.load(pcall(ffi.load, "libcrypto.so.3") and "libcrypto.so.3"
    or "libcrypto.so.1.1")
local digest = ffi.new "unsigned char[32]"
local run_worker_thread = require "thread"
local FILL = ("."):rep(1015) .. "\n"

local today = {}

-- nginx has the body in memory or in a file, and Lua as one string.
local function body()
    ngx.req.read_body()
    local data, name = ngx.req.get_body_data(), ngx.req.get_body_file()
    if name then
        local file = assert(io.open(name, "rb"))
        data = file:read "*a"
        file:close()
    end
    return data or ""
end

function today.upload()
    local data = body()
    crypto.SHA256(data, #data, digest)
    ngx.say((ffi.string(digest, 32):gsub(".", function(c)
        return ("%02x"):format(c:byte())
    end)))
end

function today.pieces()
    local lines = {}
    for i = 1, tonumber(ngx.var.arg_count) do
        lines[i] = ("%08d"):format(i) .. FILL
    end
    ngx.header["Content-Length"] = #lines * 1024
    ngx.print(lines)
end

function today.compress()
    local ran, packed = run_worker_thread("app", "compress_thread",
        "gzip_string", body())
    if not ran then
        ngx.status = 503
        return ngx.say(tostring(packed))
    end
    ngx.header["Content-Type"] = "application/gzip"
    ngx.header["Content-Length"] = #packed
    ngx.print(packed)
end

local function u32be(s)
    local a, b, c, d = s:byte(1, 4)
    return ((a * 256 + b) * 256 + c) * 256 + d
end

local function bytes_of(n)
    return string.char(math.floor(n / 16777216) % 256,
        math.floor(n / 65536) % 256, math.floor(n / 256) % 256, n % 256)
end

function today.serve_frames()
    local sock = assert(ngx.req.socket(true))
    while true do
        local head = sock:receive(4)
        local frame = head and sock:receive(u32be(head))
        if not frame or not sock:send { head, frame } then
            return ngx.exit(444)
        end
    end
end

function today.frames()
    local sock = ngx.socket.tcp()
    sock:settimeouts(1000, 5000, 5000)
    assert(sock:connect("127.0.0.1", ngx.var.server_port))
    assert(sock:send "GET /today/frames/serve HTTP/1.0\r\n\r\n")
    local sum = 0
    for i = 0, 9 do
        local n = 2 ^ i
        local frame = ("x"):rep(n)
        assert(sock:send { bytes_of(n), frame })
        local back = sock:receive(u32be(assert(sock:receive(4))))
        assert(back == frame, "another frame came back")
        sum = sum + n
    end
    sock:close()
    ngx.say(sum, " bytes there and back")
end

return today
