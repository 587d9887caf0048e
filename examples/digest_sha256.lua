-- SHA-256 by OpenSSL, and by coreutils' sha256sum as a second opinion, for
-- examples/digest.lua.
local ffi = require "ffi"
local progress = require "digest_progress"
local shell = require "digest_shell"

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
    local list = os.tmpname()
    local out = assert(io.open(list, "wb"))
    local by_name, bytes, agree = {}, 0, 0
    for _, file in ipairs(files) do
        out:write(file.name, "\0")
        by_name[file.name] = file
        bytes = bytes + file.size
    end
    out:close()
    local phase = progress.phase("check with sha256sum", #files, bytes)
    for record in shell.records("xargs -r -0 -a " .. shell.quote(list)
        .. " sha256sum -z --") do
        local sum, name = record:match "^(%x+) [ *](.*)$"
        local file = by_name[name]
        if file and hex(file.digest) == sum then
            agree = agree + 1
            by_name[name] = nil
        end
        phase:advance(1, file and file.size or 0)
    end
    os.remove(list)
    phase:finish()
    for name in pairs(by_name) do
        progress.complain(name, "sha256sum does not agree")
    end
    return agree, #files - agree
end

return sha256
