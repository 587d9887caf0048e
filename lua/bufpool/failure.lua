-- What an errno means, in words.

local ffi = require "ffi"
local core = require "bufpool.core"
local calls = require "bufpool.calls"

local MESSAGE_MAX = core.constants.MESSAGE_MAX
local new_text = ffi.typeof("char[?]")

local failure = {}

-- Why there are no n bytes.
function failure.shortage(errno, n)
    local text = new_text(MESSAGE_MAX)
    calls.shortage(errno, n, text, MESSAGE_MAX)
    return (ffi.string(text))
end

-- As strerror.
function failure.message(errno)
    local text = new_text(MESSAGE_MAX)
    calls.message(errno, text, MESSAGE_MAX)
    return (ffi.string(text))
end

return failure
