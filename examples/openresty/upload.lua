-- POST /upload: the SHA-256 of an upload of any size, through a buffer of 64
-- KiB. No byte goes to a temporary file.
local ffi = require "ffi"
local bufpool_ngx = require "bufpool.ngx"
local pool = require "pool"

ffi.cdef [[
void *EVP_MD_CTX_new(void);
void EVP_MD_CTX_free(void *);
const void *EVP_sha256(void);
int EVP_DigestInit_ex(void *context, const void *type, void *engine);
int EVP_DigestUpdate(void *context, const void *data, size_t n);
int EVP_DigestFinal_ex(void *context, unsigned char *to, unsigned int *n);
]]

local function load_crypto()
    for _, name in ipairs { "libcrypto.so.3", "libcrypto.so.1.1", "crypto" } do
        local ok, lib = pcall(ffi.load, name)
        if ok then
            return lib
        end
    end
    error("OpenSSL's libcrypto is missing")
end

local crypto = load_crypto()
local digest = ffi.new "unsigned char[32]"
local PIECE = 65536

local function hex(bytes)
    return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function refuse(status, message)
    ngx.status = status
    ngx.say(message)
    return ngx.exit(status)
end

return function()
    local left = tonumber(ngx.var.http_content_length)
    if not left then
        return refuse(411, "a Content-Length is needed")
    end
    local context = ffi.gc(crypto.EVP_MD_CTX_new(), crypto.EVP_MD_CTX_free)
    crypto.EVP_DigestInit_ex(context, crypto.EVP_sha256(), nil)
    if left > 0 then
        local sock = assert(ngx.req.socket())
        -- Whatever happens to the client, the buffer goes home.
        local buf = assert(bufpool_ngx.scope(pool)):writer(PIECE)
        while left > 0 do
            local n = math.min(left, PIECE)
            local got, message = bufpool_ngx.receive(sock, buf:reset(), n)
            if not got then
                return refuse(400, message)
            end
            crypto.EVP_DigestUpdate(context, buf:ref())
            left = left - n
        end
        buf:release()
    end
    crypto.EVP_DigestFinal_ex(context, digest, nil)
    ngx.say(hex(ffi.string(digest, 32)))
end
