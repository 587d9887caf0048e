-- bufpool.ngx: what handlers of nginx's Lua module need of buffers.

-- In worker threads and in nginx's stream module, `ngx` is another thing.
local ngx = rawget(_G, "ngx")
if type(ngx) ~= "table" or type(ngx.print) ~= "function"
    or type(ngx.req) ~= "table" or type(ngx.config) ~= "table"
    or ngx.config.subsystem ~= "http" or not pcall(require,
        "resty.core.base") then
    error("bufpool.ngx works in nginx's HTTP workers only, with the Lua module "
        .. "and lua-resty-core", 0)
end

require "bufpool"
local clock = require "bufpool.ngx.clock"
local module = require("bufpool.ngx.module").functions

---@type bufpool.Ngx
local bufpool_ngx = { zero_copy = module ~= nil }

for _, part in ipairs {
    require "bufpool.ngx.output",
    require "bufpool.ngx.body",
    require "bufpool.ngx.capture",
    require "bufpool.ngx.rewrite",
    require "bufpool.ngx.scope",
    require "bufpool.ngx.socket",
    require "bufpool.ngx.status",
} do
    for name, fn in pairs(part) do
        bufpool_ngx[name] = fn
    end
end

clock.start()

return bufpool_ngx
