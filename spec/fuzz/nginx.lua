-- Generated handlers of nginx, each answered twice: by ngx.print of strings,
-- and by bufpool.ngx.print of the same bytes in buffers, frozen objects and
-- strings. The answers must not differ in a byte, nor in a line of the header,
-- nor in what print and flush return, whatever filters they pass.
--
--     make fuzz TIME=600 SPEC=spec/fuzz/nginx.lua
--
-- The first handler that is answered in two ways is made smaller, by leaving
-- out whatever it differs without, and printed.
--
-- From the environment: SEED. TIME, in seconds; without it there are 200
-- handlers, or COUNT, from number FIRST on. MODULE=no tries without
-- ngx_http_bufpool_module.
local folder = arg[0]:match "^(.*)/fuzz/[^/]*$" or ".."
package.path = folder .. "/?.lua;" .. package.path
local helper = require "support.helper"
local nginx = require "support.nginx"

local random, concat = math.random, table.concat

local seed = tonumber(os.getenv "SEED") or os.time() % 1000000
local seconds = tonumber(os.getenv "TIME")
local count = tonumber(os.getenv "COUNT") or seconds and math.huge or 200
local first = tonumber(os.getenv "FIRST") or 1
local SAYS = 60         -- seconds between signs of life

local with = os.getenv "MODULE" ~= "no"
local obstacle = nginx.obstacle(with)
if obstacle then
    print("nginx: " .. obstacle)
    print "0 passed, 0 failed, 1 skipped"
    os.exit(0)
end

-- The interpreter of the steps. The first argument of a location is "ours" or
-- "plain", the second one a number of a program.
local HANDLERS = [==[
local bufpool = require "bufpool"
local B = require "bufpool.ngx"
local pool = bufpool.new { name = "fuzz" }

local all = {}
do
    local x = 1
    for i = 1, 20011 do
        x = x * 16807 % 2147483647
        all[i] = x % 5 == 0 and string.char(128 + x % 127)
            or x % 7 == 0 and "00" or string.char(97 + x % 26)
    end
    all = table.concat(all):rep(60)
end

local objects = {}

function objects.frozen(text)
    return pool:writer():put(text):freeze()
end

function objects.buffer(text)
    return (pool:writer():put(text))
end

function objects.handle(text)
    local h = pool:borrow(0)
    h:put(text)
    return h
end

function objects.slice(text)
    local whole = objects.frozen("<" .. text .. ">")
    local slice = whole:slice(2, -2)
    whole:release()
    return slice
end

local function piece(x, ours, made)
    if x.list then
        local list = {}
        for i, each in ipairs(x.list) do
            list[i] = piece(each, ours, made)
        end
        return list
    elseif x.value then
        return loadstring("return " .. x.value)()
    end
    local text = all:sub(x.from, x.from + x.size - 1)
    if ours and objects[x.as] then
        text = objects[x.as](text)
        made[#made + 1] = text
    end
    return text
end

local steps = {}

local function output(step, ours, name)
    ours = ours and not step.theirs
    local made, list = {}, {}
    for i, x in ipairs(step.pieces) do
        list[i] = piece(x, ours, made)
    end
    local print = ours and B[name] or ngx[name]
    local done, err = print(unpack(list, 1, #step.pieces))
    for _, object in ipairs(made) do
        if step.wipe and object.wipe then
            object:wipe()
        end
        object:release()
    end
    return done, err
end

function steps.print(step, ours) return output(step, ours, "print") end
function steps.say(step, ours) return output(step, ours, "say") end
function steps.flush() return ngx.flush() end
function steps.wait() return ngx.flush(true) end
function steps.sleep() return ngx.sleep(0.001) end
function steps.eof() return ngx.eof() end
function steps.exit(step) ngx.exit(step.status) end
function steps.fail() error "as drawn" end
function steps.send_headers() return ngx.send_headers() end
function steps.status(step) ngx.status = step.status end

function steps.header(step)
    ngx.header[step.name] = step.value
end

function steps.capture(step, ours)
    local answer = ngx.location.capture("/nothing/"
        .. (ours and "ours" or "plain") .. "/sub" .. ngx.ctx.number)
    return steps.print({ pieces = step.pieces }, ours),
        ngx.print(answer.status, answer.body)
end

local M = {}

function M.run(who, number)
    local ours, told = who == "ours", {}
    ngx.ctx.number = number
    local log = ngx.shared.log
    local sub = number:match "^sub(.*)$"
    if not sub then
        log:delete("told" .. who)
        log:delete("ended" .. who)
    end
    local program = dofile(ngx.config.prefix() .. "program" .. (sub or number))
    for _, step in ipairs(sub and program.sub or program) do
        local ok, done, err = pcall(steps[step.op], step, ours)
        told[#told + 1] = step.op .. " " .. tostring(ok) .. " "
            .. tostring(done):gsub("^.-:%d+: ", "") .. " " .. tostring(err)
        if not sub then
            log:set("told" .. who, table.concat(told, "\n"))
        end
    end
end

function M.chunks()
    if #ngx.arg[1] > 0 then
        ngx.arg[1] = #ngx.arg[1] .. " " .. ngx.arg[1] .. "\n"
    end
end

function M.ended(who)
    ngx.shared.log:set("ended" .. who, true)
end

function M.told(who)
    ngx.print(tostring(ngx.shared.log:get("ended" .. who)), "\n",
        ngx.shared.log:get("told" .. who) or "")
end

function M.out()
    collectgarbage()
    collectgarbage()
    ngx.print(pool:stats().checked_out)
end

return M
]==]

-- Filters. `once`: nginx's Lua module sends what follows the first output out
-- of order. `holds`: ngx.flush(true) may wait for ever.
local FILTERS = {
    { name = "nothing", conf = "" },
    { name = "lua", conf = "body_filter_by_lua_block { "
        .. "require('handlers').chunks() } header_filter_by_lua_block { "
        .. "ngx.header.content_length = nil }" },
    { name = "to_utf8", conf = "source_charset koi8-r; charset utf-8; "
        .. "override_charset on;" },
    { name = "in_place", conf = "source_charset koi8-r; "
        .. "charset windows-1251; override_charset on;" },
    { name = "gzip", conf = "gzip on; gzip_http_version 1.0; "
        .. "gzip_min_length 1;" },
    { name = "sub", holds = true, conf = "sub_filter_once off; "
        .. "sub_filter '00' 'zero';" },
    { name = "ssi", holds = true, conf = "ssi on;" },
    { name = "addition", once = true, holds = true,
        conf = "add_before_body /part; add_after_body /part;" },
    { name = "postponed", conf = "postpone_output 100000;" },
    -- For clients that vanish: the others may have all before the handler ends.
    { name = "aborted", vanishing = true, conf = "lua_check_client_abort on;" },
}

local function configuration()
    local maps, other, server = {}, {}, {}
    for byte = 128, 255 do
        maps[#maps + 1] = ("%02X D0%02X;"):format(byte, 128 + byte % 64)
        other[#other + 1] = ("%02X %02X;"):format(byte, 383 - byte)
    end
    for i, filter in ipairs(FILTERS) do
        server[i] = ([[
            location ~ ^/%s/(\w+)/(\w+)$ {
                default_type text/html;
                %s
                content_by_lua_block {
                    require("handlers").run(ngx.var[1], ngx.var[2])
                }
                log_by_lua_block { require("handlers").ended(ngx.var[1]) }
            }]]):format(filter.name, filter.conf)
    end
    return nginx.conf {
        modules = with and { nginx.module } or {},
        listen = "listen 127.0.0.1:@PORT@; listen 127.0.0.1:@PORT1@ http2;",
        http = ("lua_shared_dict log 1m;\n"
            .. "charset_map koi8-r utf-8 { %s }\n"
            .. "charset_map koi8-r windows-1251 { %s }\n"):format(
            concat(maps, " "), concat(other, " ")),
        server = concat(server, "\n") .. [[
            location = /part { return 200 "[part]"; }
            location ~ ^/told/(\w+)$ { content_by_lua_block {
                require("handlers").told(ngx.var[1]) } }
            location = /out { content_by_lua_block {
                require("handlers").out() } }
        ]],
    }
end

-- Programs --------------------------------------------------------------------

local SIZES = { 0, 1, 2, 15, 100, 1460, 4095, 4096, 4097, 8192, 32768, 65536,
    200000, 400000 }
local KINDS = { "frozen", "buffer", "handle", "slice", "string" }
local VALUES = { "nil", "true", "false", "12", "-0", "0.5", "1e300", "ngx.null",
    "'text'" }

local function pick(list)
    return list[random(#list)]
end

local function draw_piece(depth)
    local dice = random(10)
    if dice == 1 and depth < 3 then
        local list = {}
        for i = 1, random(0, 4) do
            list[i] = draw_piece(depth + 1)
        end
        return { list = list }
    elseif dice == 2 then
        -- A nil in a table would be a hole.
        return { value = VALUES[random(depth > 0 and 2 or 1, #VALUES)] }
    end
    return { as = pick(KINDS), size = pick(SIZES), from = random(20000) }
end

local function draw_output(op)
    local step = { op = op or pick { "print", "print", "say" }, pieces = {},
        theirs = random(5) == 1 or nil, wipe = random(2) == 1 or nil }
    for i = 1, pick { 0, 1, 1, 1, 1, 2, 3, 5 } do
        step.pieces[i] = draw_piece(0)
    end
    return step
end

local function draw_step(filter)
    local dice = random(20)
    if dice <= 12 then
        return draw_output()
    elseif dice <= 15 then
        return { op = filter.holds and "flush" or pick { "flush", "wait" } }
    elseif dice == 16 then
        return { op = "sleep" }
    elseif dice == 17 then
        return { op = pick { "eof", "send_headers" } }
    elseif dice == 18 then
        return pick { { op = "status", status = pick { 200, 204, 404 } },
            { op = "header", name = "X-Drawn", value = "yes" } }
    elseif dice == 19 then
        return pick { { op = "exit", status = pick { 200, 403 } },
            { op = "fail" } }
    end
    return filter.holds and { op = "flush" }
        or draw_output "capture"
end

local CLIENTS = { "--http1.1", "--http1.1", "--http1.0", "--http2", "pipelined",
    "slow", "vanishing", "head" }

local function draw(number)
    math.randomseed(seed * 4099 + number)
    local filter = pick(FILTERS)
    local program = { filter = filter, client = filter.vanishing
        and "vanishing" or pick(CLIENTS), sub = {} }
    for i = 1, filter.once and 1 or random(8) do
        program[i] = filter.once and draw_output() or draw_step(filter)
    end
    for i = 1, random(3) do
        program.sub[i] = draw_output()
    end
    return program
end

local function text_of(x)
    if type(x) == "string" then
        return ("%q"):format(x)
    elseif type(x) ~= "table" then
        return tostring(x)
    end
    local words, n = {}, #x
    for _, each in ipairs(x) do
        words[#words + 1] = text_of(each)
    end
    for _, key in ipairs { "op", "list", "value", "as", "size", "from",
        "pieces", "theirs", "wipe", "status", "name", "sub" } do
        if x[key] ~= nil then
            words[#words + 1] = key .. " = " .. text_of(x[key])
        end
    end
    return "{ " .. concat(words, n > 0 and type(x[1]) == "table" and ",\n  "
        or ", ") .. " }"
end

-- Answers ---------------------------------------------------------------------

local server

local function without_date(text)
    return (text:gsub("\r\n[Dd]ate: [^\r]*", ""))
end

local function fetch(program, who, number)
    local path = ("/%s/%s/%s"):format(program.filter.name, who, number)
    local file, client = server.dir .. "/answer", program.client
    nginx.write(file, "")
    if client == "pipelined" then
        local ask = ("GET %s HTTP/1.1\\r\\nHost: x\\r\\nAccept-Encoding: "
            .. "gzip\\r\\n%%s\\r\\n"):format(path)
        helper.shell(([[timeout 10 bash -c 'exec 3<>/dev/tcp/127.0.0.1/%d
            printf "%s" "" >&3
            printf "%s" "Connection: close\\r\\n" >&3
            cat <&3 >%s']]):format(server.port, ask, ask:gsub("%%s",
            "Connection: close\\r\\n"), file))
        return without_date(nginx.read(file))
    end
    local options = client == "slow" and "--limit-rate 2M"
        or client == "vanishing" and "--limit-rate 1k --max-time 0.03"
        or client == "head" and "-I"
        or client == "--http2" and "--http2-prior-knowledge" or client
    helper.shell(("curl -s -i --max-time 10 -H 'Accept-Encoding: gzip' %s "
        .. "-o %s '%s'"):format(options, file, server:url(path,
        client == "--http2" and 1 or nil)))
    return client == "vanishing" and "" or without_date(nginx.read(file))
end

local function difference(a, b)
    local at = 1
    while at <= #a and a:byte(at) == b:byte(at) do
        at = at + 1
    end
    return ("%d bytes for %d, different at %d: %q for %q"):format(#b, #a, at,
        b:sub(at, at + 60), a:sub(at, at + 60))
end

-- What the calls returned, once the request has ended.
local function told_by(who)
    local text
    nginx.soon(function()
        text = server:get("/told/" .. who).body
        return text:find "^true"
    end)
    return text
end

-- How the answers to the program differ; nil if they do not.
local function failure_of(program)
    nginx.write(server.dir .. "/program1", "return " .. text_of(program))
    local plain, ours = fetch(program, "plain", 1), fetch(program, "ours", 1)
    if plain ~= ours then
        return difference(plain, ours)
    end
    local told, told_ours = told_by "plain", told_by "ours"
    if program.client ~= "vanishing" and program.client ~= "pipelined" then
        if told ~= told_ours then
            return "returned " .. difference(told, told_ours)
        end
    end
    local out
    if not nginx.soon(function()
        out = server:get "/out".body
        return out == "0"
    end) then
        return out .. " are out"
    end
    if server:log():find("signal", 1, true) then
        return "a worker has died: " .. server:log()
    end
end

-- Leaves out parts of the list as long as the program fails without them.
local function shrink_list(program, list, how)
    local i = 1
    while i <= #list do
        local part = table.remove(list, i)
        local still = failure_of(program)
        if still then
            how = still
        else
            table.insert(list, i, part)
            if part.pieces or part.list then
                how = shrink_list(program, part.pieces or part.list, how)
            end
            i = i + 1
        end
    end
    return how
end

local function run_all()
    local start, said = os.time(), os.time()
    local number, done = first, 0
    while done < count and os.time() - start < (seconds or math.huge) do
        local program = draw(number)
        local how = failure_of(program)
        if how then
            io.write(("nginx: SEED=%d FIRST=%d COUNT=1 fails after %d s: %s\n")
                :format(seed, number, os.time() - start, how))
            io.flush()
            how = shrink_list(program, program, how)
            shrink_list(program, program.sub, how)
            io.write("-- filter ", program.filter.name, ", client ",
                program.client, ": ", how, "\n", text_of(program), "\n")
            return false, done
        end
        number, done = number + 1, done + 1
        if os.time() - said >= SAYS then
            said = os.time()
            io.write("nginx: ", done, " handlers so far\n")
            io.flush()
        end
    end
    return true, done
end

io.write("nginx: SEED=", seed, "\n")
io.flush()
server = nginx.start { conf = configuration(),
    files = { ["handlers.lua"] = HANDLERS } }
local ok, passed, done = pcall(run_all)
server:stop()
if not ok then
    error(passed, 0)
end
io.write(("nginx: %d handlers\n%d passed, %d failed, 0 skipped\n"):format(done,
    passed and 1 or 0, passed and 0 or 1))
os.exit(passed and 0 or 1)
