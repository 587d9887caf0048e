-- A protocol of frames over cosockets: four bytes of length, and as many bytes.
-- GET /frames/serve is the server; after the head of the request the connection
-- is the protocol's, and each frame comes back. GET /frames is a client.
local bufpool_ngx = require "bufpool.ngx"
local pool = require "pool"

local send, receive = bufpool_ngx.send, bufpool_ngx.receive
local FRAME_MAX = 1048576

-- Appends a frame; returns nil and a message where there is none.
local function read_frame(sock, buf)
    local got, message = receive(sock, buf, 4)
    if not got then
        return nil, message
    end
    local n = buf:u32be(-4)
    if n > FRAME_MAX then
        return nil, "too long a frame"
    end
    return receive(sock, buf, n)
end

local function serve()
    local sock = assert(ngx.req.socket(true))
    local buf = assert(bufpool_ngx.scope(pool)):writer()
    while read_frame(sock, buf:reset()) do
        if not send(sock, buf) then
            break
        end
    end
    return ngx.exit(444)        -- closes the connection
end

local function client()
    local scope = assert(bufpool_ngx.scope(pool))
    local sock = ngx.socket.tcp()
    sock:settimeouts(1000, 5000, 5000)
    assert(sock:connect("127.0.0.1", ngx.var.server_port))
    assert(send(sock, "GET /frames/serve HTTP/1.0\r\n\r\n"))
    local out, back = scope:writer(), scope:writer()
    local sum = 0
    for i = 0, 9 do
        local n = 2 ^ i
        out:reset():put_u32be(n):put(("x"):rep(n))
        assert(send(sock, out))
        assert(read_frame(sock, back:reset()))
        assert(out:equals(back), "another frame came back")
        sum = sum + n
    end
    sock:close()
    ngx.say(sum, " bytes there and back")
end

return { serve = serve, client = client }
