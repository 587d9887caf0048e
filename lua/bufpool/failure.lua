-- What an errno means, in words.

local ffi = require "ffi"
local calls = require "bufpool.calls"

local TEXT = 160 -- bytes; longer than any message
local new_text = ffi.typeof("char[?]")

local failure = {}

---Why there are no n bytes.
function failure.shortage(errno, n)
    local text = new_text(TEXT)
    calls.shortage(errno, n, text, TEXT)
    return (ffi.string(text))
end

---As strerror.
function failure.message(errno)
    local text = new_text(TEXT)
    calls.message(errno, text, TEXT)
    return (ffi.string(text))
end

return failure
