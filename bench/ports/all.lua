-- Small programs of the shape of libraries' hot paths. Each file returns a
-- table with its name; `input`, which makes the input from random numbers; and
-- the same program three times, as a function of the input: `plain`, with Lua's
-- strings and tables; `buffer`, with string.buffer, which is absent where
-- LuaJIT has none; `bufpool`. All three return the same.
local ports = {}
for i, name in ipairs { "messagepack", "websocket", "resp", "kafka", "lz77",
    "rows", "multipart", "http" } do
    ports[i] = require("ports." .. name)
end
return ports
