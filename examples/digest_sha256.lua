-- SHA-256 by OpenSSL, and by coreutils' sha256sum as a second opinion, for
-- examples/digest.lua.
local ffi = require "ffi"
local find = require "digest_find"
local progress = require "digest_progress"

ffi.cdef [[
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_md_st EVP_MD;
EVP_MD_CTX *EVP_MD_CTX_new(void);
const EVP_MD *EVP_sha256(void);
int EVP_DigestInit_ex(EVP_MD_CTX *, const EVP_MD *, void *);
int EVP_DigestUpdate(EVP_MD_CTX *, const void *, size_t);
int EVP_DigestFinal_ex(EVP_MD_CTX *, unsigned char *, unsigned *);
]]

local sha256 = {}

local function load_crypto()
    local ok, lib
    for _, name in ipairs { "crypto", "libcrypto.so.3", "libcrypto.so.1.1" } do
        ok, lib = pcall(ffi.load, name)
        if ok then
            return lib
        end
    end
    error("OpenSSL's libcrypto is missing: " .. lib, 0)
end

local crypto = load_crypto()
local context = crypto.EVP_MD_CTX_new()     -- one for the whole run
local result = ffi.new "unsigned char[64]"

function sha256.start()
    assert(crypto.EVP_DigestInit_ex(context, crypto.EVP_sha256(), nil) == 1)
end

-- `data` is a pointer or a Lua string.
function sha256.update(data, n)
    assert(crypto.EVP_DigestUpdate(context, data, n) == 1)
end

function sha256.finish()
    assert(crypto.EVP_DigestFinal_ex(context, result, nil) == 1)
    return ffi.string(result, 32)
end

local function hex(digest)
    return (digest:gsub(".", function(c)
        return ("%02x"):format(c:byte())
    end))
end

-- Has sha256sum digest the files of a list of { name, digest, size }. Returns
-- how many digests agree and how many do not. -z keeps it from rewriting odd
-- names.
function sha256.check(files)
    local names = os.tmpname()
    local out = assert(io.open(names, "wb"))
    local expected, sizes, bytes = {}, {}, 0
    for _, file in ipairs(files) do
        out:write(file.name, "\0")
        expected[file.name] = hex(file.digest)
        sizes[file.name] = file.size
        bytes = bytes + file.size
    end
    out:close()
    local phase = progress.phase("check with sha256sum", #files, bytes)
    local pipe = assert(io.popen("exec xargs -r -0 -a " .. find.quote(names)
        .. " sha256sum -z --", "r"))
    local agree, rest = 0, ""
    for piece in function() return pipe:read(1024) end do
        local at = 1
        rest = rest .. piece
        for sum, name, after in rest:gmatch "(%x+) [ *]([^%z]+)%z()" do
            if expected[name] == sum then
                agree = agree + 1
                expected[name] = nil
            end
            phase:advance(1, sizes[name] or 0)
            at = after
        end
        rest = rest:sub(at)
    end
    pipe:close()
    os.remove(names)
    phase:finish()
    for name in pairs(expected) do
        progress.complain(name, "sha256sum does not agree")
    end
    return agree, #files - agree
end

return sha256
