-- Functions for a number of values, without loops: a loop over the arguments
-- does not fit into the trace of a program's own loop.

local check = require "bufpool.check"

local assert, load, tostring = assert, loadstring, tostring
local concat, gsub = table.concat, string.gsub

local unroll = {}

-- One text for each of `count` values: $k is its number, $i one less.
function unroll.each(count, text)
    local parts = {}
    for k = 1, count do
        parts[k] = gsub(text, "$(%a)", { k = k, i = k - 1 })
    end
    return concat(parts)
end

local each = unroll.each

-- A function of a template of Lua code. In it, $count and $params are the
-- number of values and their names, v1 and so on, each after a comma; and
-- $NAME is the text of that name in `texts`, once for each value.
-- Errors are told as of the file `module`. Returns what the code returns, which
-- gets `...` as its arguments.
function unroll.make(module, template, count, texts, ...)
    -- Without a loop over pairs: inside a finalizer the LuaJIT of Debian 12
    -- leaves and enters a trace of such a loop for ever where a guard of it
    -- fails, because no exit counts as hot there.
    local source = gsub(template, "$(%a+)", function(name)
        if name == "count" then
            return tostring(count)
        end
        return each(count, name == "params" and ", v$k" or texts[name])
    end)
    return assert(load(source, check.chunk(module)))(...)
end

return unroll
